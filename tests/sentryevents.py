"""Events in the shape sentry-sdk 2 gives them to `before_send`, with everything in that it could collect."""

from __future__ import annotations

import io
import json
import linecache
import logging
import traceback
from types import TracebackType
from typing import Any

from django.http import HttpRequest

from cpvpanel import sentry

RESERVED = frozenset(vars(logging.makeLogRecord({})))


def event_of(record: logging.LogRecord, breadcrumbs: list[dict[str, Any]]) -> dict[str, Any]:
    """What the SDK's logging and Django integrations make of a record, with local variables and personal data on."""
    extra = {name: value for name, value in vars(record).items() if name not in RESERVED and name != "request"}
    event: dict[str, Any] = {
        "event_id": "9" * 32,
        "timestamp": "2026-11-26T12:00:00.000000Z",
        "level": record.levelname.lower(),
        "platform": "python",
        "logger": record.name,
        "server_name": "worker-1",
        "modules": {"django": "5.2"},
        "logentry": {"message": str(record.msg), "formatted": record.getMessage(), "params": _shown(record.args)},
        "extra": {name: _shown(value) for name, value in extra.items()} | {"sys.argv": ["celery", "worker"]},
        "tags": {"code": str(extra.get("code", ""))},
        "contexts": {"runtime": {"name": "CPython", "version": "3.11"}, "celery-job": {"kwargs": _shown(extra)}},
        "breadcrumbs": {"values": list(breadcrumbs)},
        "user": {"id": "7", "email": "somebody@contoso.test", "ip_address": "192.0.2.1"},
        "sdk": {"name": "sentry.python.django", "version": "2.75.0"},
    }
    if record.exc_info and record.exc_info[1]:
        event["exception"] = {"values": list(_chain(record.exc_info[1]))}
    if isinstance(request := getattr(record, "request", None), HttpRequest):
        event["request"] = _request(request)
    return event


def _shown(value: Any) -> Any:
    return json.loads(json.dumps(value, default=repr))


def _chain(error: BaseException) -> Any:
    cause = error.__cause__ or error.__context__
    if cause:
        yield from _chain(cause)
    yield {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "value": str(error),
        "mechanism": {"type": "logging", "handled": True, "data": {"args": repr(error.args)}},
        "stacktrace": {"frames": list(_frames(error.__traceback__))},
    }


def _frames(found: TracebackType | None) -> Any:
    for frame, number in traceback.walk_tb(found):
        path = frame.f_code.co_filename
        yield {
            "filename": path,
            "abs_path": path,
            "function": frame.f_code.co_name,
            "module": frame.f_globals.get("__name__"),
            "lineno": number,
            "context_line": linecache.getline(path, number),
            "vars": {name: _repr(value) for name, value in frame.f_locals.items()},
        }


def _repr(value: Any) -> str:
    try:
        return repr(value)[:5_000]
    except Exception:
        return "no repr"


def _request(request: HttpRequest) -> dict[str, Any]:
    return {
        "url": request.build_absolute_uri(request.path),
        "method": request.method,
        "query_string": request.META.get("QUERY_STRING", ""),
        "data": request.POST.dict(),
        "cookies": dict(request.COOKIES),
        "headers": dict(request.headers),
        "env": {name: str(value) for name, value in request.META.items()},
    }


class SentryHandler(logging.Handler):
    """Collects what would be sent: each record is a breadcrumb, each error an event; `raw` is what the SDK had."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.sent, self.raw = io.StringIO(), io.StringIO()
        self._breadcrumbs: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        carried = {"args": repr(record.args)[:2000]}
        crumb = {"type": "log", "category": record.name, "message": record.getMessage(), "data": carried}
        self._breadcrumbs = [*self._breadcrumbs[-29:], crumb]
        if record.levelno >= logging.ERROR:
            event = event_of(record, self._breadcrumbs)
            self.raw.write(json.dumps(event, default=repr))
            self.sent.write(json.dumps(sentry.scrubbed(event, {})))
