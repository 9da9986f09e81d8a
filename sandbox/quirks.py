"""How Partner Center's answers differ from what its documents say; each was seen somewhere, and is a switch here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from sandbox.envelopes import as_json

BOM = b"\xef\xbb\xbf"
QUIRKS = {
    "bom": "a byte order mark in front of the JSON",
    "pascal": "property names begin with capitals",
    "sparse": "optional properties are left out: totalCount, links and attributes of everything",
    "extra": "every object has a property that no document names",
    "nulls": "what is left out elsewhere is there, and null",
    "dates": "dates in four forms in turn: seven decimals, +00:00, -08:00, no zone",
    "numbers-as-text": "numbers are strings",
    "upper-ids": "GUIDs in capitals",
    "doubled-headers": "ids in the headers come twice, with a comma",
    "v1-next": "the next link carries the /v1 prefix",
    "second-question-mark": "the next link has two question marks",
    "body-token": "no next link; the continuation token stands in the body",
}
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DATE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")


def check(names: Iterable[str]) -> list[str]:
    """:raises ValueError: a quirk that there is not"""
    given = list(names)
    strange = set(given) - set(QUIRKS)
    if strange:
        raise ValueError(f"there is no quirk {', '.join(sorted(strange))}; there are {', '.join(QUIRKS)}")
    return given


def spoil(body: bytes, names: Iterable[str]) -> bytes:
    """The JSON of an answer with these quirks; those of headers and links are not of the body."""
    wanted = [name for name in _WALKS if name in names]
    if wanted:
        value = json.loads(body)
        for name in wanted:
            value = _WALKS[name](value)
        body = as_json(value).encode()
    return BOM + body if "bom" in names else body


def _walked(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Every object inside, changed from the inside out."""
    if isinstance(value, list):
        return [_walked(one, change) for one in value]
    if isinstance(value, dict):
        return change({name: _walked(one, change) for name, one in value.items()})
    return value


def _leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, list):
        return [_leaves(one, change) for one in value]
    if isinstance(value, dict):
        return {name: _leaves(one, change) for name, one in value.items()}
    return change(value)


def _sparse(value: Any) -> Any:
    def fewer(thing: dict[str, Any]) -> dict[str, Any]:
        is_list = "items" in thing  # its links lead on
        left_out = {"totalCount", "attributes"} | (set() if is_list else {"links"})
        return {name: one for name, one in thing.items() if name not in left_out}

    return _walked(value, fewer)


def _dates(value: Any) -> Any:
    turn = 0

    def other(leaf: Any) -> Any:
        nonlocal turn
        found = _DATE.fullmatch(leaf) if isinstance(leaf, str) else None
        if not found or found[1][:4] in ("0001", "9999"):
            return leaf
        turn += 1
        moment = datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        west = moment.astimezone(timezone(timedelta(hours=-8)))
        forms = (f"{found[1]}.6062996Z", f"{found[1]}+00:00", f"{west:%Y-%m-%dT%H:%M:%S}-08:00", found[1])
        return forms[turn % len(forms)]

    return _leaves(value, other)


def _text(leaf: Any) -> Any:
    return str(leaf) if isinstance(leaf, int | float) and not isinstance(leaf, bool) else leaf


def _upper(leaf: Any) -> Any:
    return leaf.upper() if isinstance(leaf, str) and _GUID.fullmatch(leaf) else leaf


def _nulls(thing: dict[str, Any]) -> dict[str, Any]:
    return thing | {"associatedPartnerId": None, "etag": thing.get("etag")}


def _extra(thing: dict[str, Any]) -> dict[str, Any]:
    return thing | {"pretendedLater": {"since": "2026-11-01T00:00:00Z", "values": [1, None, "ä"]}}


_WALKS: dict[str, Callable[[Any], Any]] = {
    "sparse": _sparse,
    "extra": lambda value: _walked(value, _extra),
    "nulls": lambda value: _walked(value, _nulls),
    "dates": _dates,
    "numbers-as-text": lambda value: _leaves(value, _text),
    "upper-ids": lambda value: _leaves(value, _upper),
    "pascal": lambda value: _walked(value, lambda thing: {name[:1].upper() + name[1:]: v for name, v in thing.items()}),
}
