"""
What an error report to Sentry may carry: where it happened, and no value.

Active where sentry-sdk is installed and `SENTRY_DSN` is set. An event is built anew from the fields named here, so a
field that a later SDK adds stays out until somebody looks at it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cpvpanel.logs import masked

Event = dict[str, Any]

# https://develop.sentry.dev/sdk/data-model/event-payloads/
AS_THEY_ARE = ("event_id", "timestamp", "level", "platform", "release", "environment", "server_name", "modules", "sdk")
MASKED = ("message", "logger", "transaction", "culprit", "fingerprint")
SHOWN_HEADERS = frozenset({"content-type", "content-length"})
SHOWN_CONTEXTS = {
    "runtime": ("name", "version", "build"),
    "os": ("name", "version", "kernel_version"),
    "trace": ("trace_id", "span_id", "parent_span_id", "op", "status"),
}
SHOWN_EXTRA = frozenset(
    {"attempt", "cloud", "code", "correlation_id", "job", "kind", "lookup", "ms_request_id", "number", "outcome",
     "partner", "reason", "refresh_token", "run", "seconds", "status", "status_code", "suberror", "trace"}
)  # fmt: skip
FRAME = (
    "abs_path",
    "context_line",
    "filename",
    "function",
    "in_app",
    "lineno",
    "module",
    "post_context",
    "pre_context",
)
EXCEPTION = ("type", "module", "thread_id")
MECHANISM = ("type", "handled", "exception_id", "parent_id", "is_exception_group")
BREADCRUMB = ("type", "category", "level", "timestamp")
WITH_VALUES = frozenset({"query", "redis", "httplib", "subprocess"})  # breadcrumbs whose message is made of values


def start(dsn: str) -> bool:
    """Send error reports from this process; False where there is no address or no sentry-sdk."""
    if not dsn or not is_installed():
        return False
    import sentry_sdk

    sentry_sdk.init(
        dsn=dsn,
        before_send=scrubbed,
        before_send_transaction=dropped,
        before_breadcrumb=scrubbed_breadcrumb,
        include_local_variables=False,
        max_request_body_size="never",
        send_default_pii=False,
        traces_sample_rate=0,
        auto_session_tracking=False,
    )
    return True


def is_installed() -> bool:
    return importlib.util.find_spec("sentry_sdk") is not None


def dropped(_event: Event, _hint: Mapping[str, Any]) -> None:
    """Transactions and spans carry addresses and statements; we send errors only."""


def scrubbed(event: Mapping[str, Any], _hint: Mapping[str, Any]) -> Event:
    """The event as it may leave; Sentry's `before_send`."""
    clean: Event = _only(event, AS_THEY_ARE) | {name: _masked(event[name]) for name in MASKED if event.get(name)}
    parts = {
        "exception": _each(_values(event.get("exception")), _exception),
        "breadcrumbs": _each(_values(event.get("breadcrumbs")), _breadcrumb),
        "logentry": _logentry(event.get("logentry")),
        "request": _request(event.get("request")),
        "contexts": _contexts(event.get("contexts")),
        "extra": _shown(event.get("extra"), SHOWN_EXTRA),
        "tags": _shown(event.get("tags"), SHOWN_EXTRA),
    }
    return clean | {name: part for name, part in parts.items() if part}


def scrubbed_breadcrumb(crumb: Mapping[str, Any], _hint: Mapping[str, Any]) -> Event:
    """One breadcrumb as it may be kept; Sentry's `before_breadcrumb`."""
    return _breadcrumb(crumb)


def _only(given: Mapping[str, Any], names: Iterable[str]) -> Event:
    return {name: given[name] for name in names if name in given}


def _masked(value: Any) -> Any:
    return [masked(part) for part in value] if isinstance(value, list) else masked(value)


def _values(part: Any) -> list[Mapping[str, Any]]:
    """The entries of an interface, which is a list or an object around one."""
    found = part.get("values") if isinstance(part, Mapping) else part
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _each(entries: list[Mapping[str, Any]], clean: Any) -> Event:
    return {"values": [clean(entry) for entry in entries]} if entries else {}


def _exception(given: Mapping[str, Any]) -> Event:
    """Frames keep the code and lose every variable; the text of the exception is masked."""
    clean = _only(given, EXCEPTION) | {"value": masked(str(given.get("value", "")))}
    if isinstance(given.get("mechanism"), Mapping):
        clean["mechanism"] = _only(given["mechanism"], MECHANISM)
    stack = given.get("stacktrace")
    if isinstance(stack, Mapping):
        frames = [_only(frame, FRAME) for frame in stack.get("frames") or [] if isinstance(frame, Mapping)]
        clean["stacktrace"] = {"frames": frames}
    return clean


def _breadcrumb(given: Mapping[str, Any]) -> Event:
    clean = _only(given, BREADCRUMB)
    if given.get("message") and given.get("category") not in WITH_VALUES:
        clean["message"] = masked(str(given["message"]))
    return clean


def _logentry(given: Any) -> Event:
    """The parameters are left out: what they say is in the formatted text, which is masked."""
    if not isinstance(given, Mapping):
        return {}
    return {name: masked(str(given[name])) for name in ("message", "formatted") if given.get(name)}


def _request(given: Any) -> Event:
    """Method and path; no query, body, cookie or variable, and of the headers those that say nothing of anybody."""
    if not isinstance(given, Mapping):
        return {}
    address = urlsplit(str(given.get("url", "")))
    headers = given.get("headers")
    pairs = headers.items() if isinstance(headers, Mapping) else headers or []
    return {
        "method": given.get("method"),
        "url": masked(f"{address.scheme}://{address.hostname or ''}{address.path}"),
        "headers": {name: value for name, value in pairs if str(name).lower() in SHOWN_HEADERS},
    }


def _contexts(given: Any) -> Event:
    if not isinstance(given, Mapping):
        return {}
    shown = {name: _only(given[name], fields) for name, fields in SHOWN_CONTEXTS.items() if name in given}
    return masked(shown)  # type: ignore[no-any-return]  # a dict comes back as one


def _shown(given: Any, names: Iterable[str]) -> Event:
    """Of what was attached to a log record the fields that are ours and hold codes, names and numbers."""
    if not isinstance(given, Mapping):
        return {}
    return {name: masked(value) for name, value in given.items() if name in names}
