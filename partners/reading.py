"""
Microsoft's lists as bytes, and what they say: pages, items, dates and numbers, in all the shapes seen in recordings.

A page is looked at in two steps. What surrounds the items tells where the list goes on, and a digest of their bytes
whether anything is new; only then are the items themselves read. What is in the usual shape is read at full speed;
anything else (other case, missing or odd values) once more, slowly and with patience.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin

import msgspec

Item = TypeVar("Item", bound="Listed")
Cursor = dict[str, str]

_BOM = b"\xef\xbb\xbf"
_NOTHING = msgspec.Raw()
_NEVER, _NO_END = 1, 9999  # the years of Microsoft's "never" and "without an end"
_DIGITS = 64  # a number longer than that is none


class Listed(msgspec.Struct, rename="camel", gc=False):
    """
    The fields we use of one item of a list, as Microsoft names them.

    Those without a default are in every item of the usual shape; an item that lacks one is read again with patience,
    and then it may be None all the same. Those in `instead` count only where one of them is missing.
    """

    instead: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True)
class ListedPage:
    """
    A page before its items are read.

    `total` is Microsoft's totalCount, which may count this page only. `cursor` may be stored; None on the last page.
    """

    items: bytes
    total: int | None
    cursor: Cursor | None
    digest: bytes | None = None  # of the items, where it is known that they are as they were


def digest(items: bytes, salt: bytes = b"") -> bytes:
    """The same for the same bytes; customers choose their names, so nothing weaker than this will do."""
    found = hashlib.sha256(salt)
    found.update(items)
    return found.digest()


class _Envelope(msgspec.Struct, rename="camel"):
    items: msgspec.Raw = _NOTHING
    total_count: msgspec.Raw = _NOTHING
    links: msgspec.Raw = _NOTHING
    continuation_token: msgspec.Raw = _NOTHING


@dataclass(frozen=True)
class Envelope:
    """What surrounds the items of a list. `items` is None where there is no list."""

    items: bytes | None
    total: int | None
    links: Any
    continuation_token: Any
    digest: bytes | None = None  # as `ListedPage` has it


@dataclass(frozen=True)
class AsBefore:
    """How a page was when its items were last read: the digest of their bytes, and the salt it was made with."""

    digest: bytes
    salt: bytes


# --- Pages ----------------------------------------------------------------------------------------------------------
_envelopes = msgspec.json.Decoder(_Envelope)
_ITEMS, _LINKS, _EMPTY = b'"items":[', b'],"links":', b"[]"
# Overlooking where the list goes on would be taken for its end.
_ODD = re.compile(rb'"(?!links"|continuationToken"|totalCount")(?i:links|continuationtoken|totalcount)"')


def envelope(content: bytes, before: AsBefore | None = None) -> Envelope | None:
    """
    What surrounds the items; None for JSON that is no object.

    Where the items are as they were `before`, nothing has to look for their end.
    :raises ValueError: it is no JSON
    """
    content = content.removeprefix(_BOM)
    found = None if before is None else _as_before(content, before)
    return found or _envelope(content)


def _as_before(content: bytes, before: AsBefore) -> Envelope | None:
    """
    The same of a page whose items were read before, byte by byte as they are now; None where that can't be said.

    Those are a list, then; so the rest is read with an empty one in their place, and must have it as its items.
    """
    begin, end = content.find(_ITEMS) + len(_ITEMS) - 1, content.rfind(_LINKS) + 1
    if not len(_ITEMS) <= begin + 1 < end:
        return None
    items = content[begin:end]
    if digest(items, before.salt) != before.digest:
        return None
    rest = content[:begin] + _EMPTY + content[end:]
    try:
        found = _envelope(rest) if rest.count(_ITEMS) == 1 else None
    except ValueError:
        return None
    return replace(found, items=items, digest=before.digest) if found and found.items == _EMPTY else None


def _envelope(content: bytes) -> Envelope | None:
    try:
        found = _envelopes.decode(content)
    except ValueError:
        return _patient_envelope(content)
    items = bytes(found.items)
    begin = content.find(items[:64])
    if not items.startswith(b"[") or _ODD.search(content, 0, begin) or _ODD.search(content, begin + len(items)):
        return _patient_envelope(content)
    return Envelope(
        items=items,
        total=count(_small(found.total_count)),
        links=_small(found.links),
        continuation_token=_small(found.continuation_token),
    )


def _small(raw: msgspec.Raw) -> Any:
    content = bytes(raw)
    return parse(content) if content else None


def _patient_envelope(content: bytes) -> Envelope | None:
    body = parse(content)
    if not isinstance(body, dict):
        return None
    items, total = read(body, "items"), read(body, "totalCount")
    if items is None and total is not None:
        items = []
    return Envelope(
        items=json.dumps(items).encode() if isinstance(items, list) else None,
        total=count(total),
        links=read(body, "links"),
        continuation_token=read(body, "continuationToken"),
    )


def count(value: Any) -> int | None:
    """A number of things that a database takes; Microsoft may write it as a string."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,10}", value, re.ASCII):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def parse(content: bytes) -> Any:
    """JSON with or without a byte order mark; ValueError for anything else, however deep or odd it is."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read(node: Any, key: str) -> Any:
    """A property in whatever case Microsoft writes it; None when it is missing or there is no object at all."""
    if not isinstance(node, dict):
        return None
    if key in node:
        return node[key]
    wanted = key.lower()
    return next((value for name, value in node.items() if name.lower() == wanted), None)


# --- Items ----------------------------------------------------------------------------------------------------------
class Reader(Generic[Item]):
    """Reads the items of one kind of list."""

    def __init__(self, shape: type[Item]) -> None:
        self._shape = shape
        self._quick = msgspec.json.Decoder(list[shape])  # type: ignore[valid-type]
        self._optional = [(f'"{name}"'.encode(), f'"{name.lower()}"'.encode()) for name in set(_optional(shape))]

    def form(self) -> str:
        """Changes when another field is read."""
        return str(msgspec.json.schema(self._shape))

    def items(self, content: bytes) -> list[Item]:
        """
        The items between a page's brackets.

        :raises ValueError: it is no JSON
        """
        try:
            found = self._quick.decode(content)
        except (ValueError, RecursionError):
            found = None
        if found is None or self._overlooks(content, len(found)):
            return [_patiently(item, self._shape) for item in parse(content)]
        return found

    def _overlooks(self, content: bytes, number: int) -> bool:
        """Whether the quick way missed a property that items may lack, as it is there in another case."""
        found = [(times, low) for key, low in self._optional if (times := content.count(key)) != number]
        lower = content.lower() if found else b""
        return any(lower.count(low) != times for times, low in found)


def _optional(shape: Any) -> Iterator[str]:
    """The names of all properties that an item of the usual shape may lack, those of what is in it among them."""
    for field in msgspec.structs.fields(shape):
        if not field.required and field.name not in shape.instead:
            yield field.encode_name
        for inner in get_args(field.type) or (field.type,):
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                yield from _optional(inner)


def _patiently(node: Any, shape: type[Any]) -> Any:
    """An item whatever the case of its properties; None for what is missing, and for what is no value of its field."""
    named = {name.lower(): value for name, value in node.items()} if isinstance(node, dict) else {}
    return shape(**{name: _value(named.get(key), types) for name, key, types in _fields(cast(Any, shape))})


@cache
def _fields(shape: Any) -> tuple[tuple[str, str, tuple[Any, ...]], ...]:
    return tuple(
        (field.name, field.encode_name.lower(), get_args(field.type) if _is_choice(field.type) else (field.type,))
        for field in msgspec.structs.fields(shape)
    )


def _is_choice(hint: Any) -> bool:
    return isinstance(hint, UnionType)


def _value(found: Any, types: tuple[Any, ...]) -> Any:
    for wanted in types:
        if get_origin(wanted) is list and isinstance(found, list):
            [of] = get_args(wanted)
            return [_value(one, (of,)) for one in found]
        if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
            return _patiently(found, wanted)
        if wanted is uuid.UUID and (as_id := guid(found)) is not None:
            return as_id
        if wanted in (str, bool, int, float) and type(found) is wanted:
            return text(found) if wanted is str else found
    return None


def content_hasher(form: bytes) -> Callable[[msgspec.Struct], bytes]:
    """
    What gives a hash of 16 bytes for an item: the same for the same values, whatever else Microsoft wrote around them.

    `form` is of what becomes of it, at most 16 bytes: where that is another, so are all hashes.
    """
    begun = hashlib.blake2b(digest_size=16, person=form)  # to copy it is faster than to begin anew

    def content_hash(item: msgspec.Struct) -> bytes:
        found = begun.copy()
        found.update(_packer.encode(item))
        return found.digest()

    return content_hash


_packer = msgspec.msgpack.Encoder(decimal_format="number")


# --- Values ---------------------------------------------------------------------------------------------------------
def text(value: object, longest: int | None = None) -> str:
    """A string a database takes: no NUL, and no half of a surrogate pair; cut to what a column holds."""
    if not isinstance(value, str):
        return ""
    if not value.isascii() or "\x00" in value:
        value = value.replace("\x00", "").encode("utf-8", "replace").decode()
    return value.strip()[:longest]


def guid(value: Any) -> uuid.UUID | None:
    try:
        return uuid.UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def number(value: Any) -> Decimal | None:
    """A number, also one that is written as a string, as Microsoft writes money and quantities on some lists."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal) or len(str(value)) > _DIGITS:
        return None
    try:
        found = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def whole(value: Any) -> int | None:
    """A whole number that a column takes."""
    found = number(value)
    if found is None or abs(found) >= 2**31 or found != int(found):
        return None
    return int(found)


_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ]\s*(\d\d):\s*(\d\d)(?::\s*(\d\d))?(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d\d:?\d\d)?", re.I
)


def moment(value: Any) -> dt.datetime | None:
    """
    A time in UTC; None for "never" (year 1) and "without an end" (year 9999), and for what is no time.

    Seen in recordings: seven decimals, offsets, no zone at all (which is UTC), blanks between the parts.
    """
    found = _MOMENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found or not _NEVER < int(found[1][:4]) < _NO_END:
        return None
    day, hour, minute, second, fraction, zone = found.groups()
    written = f"{day}T{hour or '00'}:{minute or '00'}:{second or '00'}.{(fraction or '0')[:6].ljust(6, '0')}"
    try:
        return dt.datetime.fromisoformat(written + ("+00:00" if zone in (None, "Z", "z") else zone)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None
