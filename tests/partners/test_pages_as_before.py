"""A page whose items are as they were is known by their bytes, and all the same by nothing less than its JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from partners.reading import AsBefore, Envelope, digest, envelope

SALT = b"salt"
ITEMS = b'[{"id":"1","links":{"self":{"uri":"/a"}},"tags":["x"]},{"id":"2","name":"]},\\"links\\":"}]'
BEFORE = AsBefore(digest(ITEMS, SALT), SALT)
LINKS = b'{"next":{"uri":"/customers?size=500&seekOperation=Next","headers":[{"key":"a","value":"b"}]}}'
PAGE = b'{"totalCount":2,"items":' + ITEMS + b',"links":' + LINKS + b',"attributes":{"objectType":"Collection"}}'


def read(content: bytes, before: AsBefore | None = None) -> Any:
    """What is read of a page, but how it was known and how its items are written; "none" for what is no JSON."""
    try:
        found = envelope(content, before)
        return found and (found.items and json.loads(found.items), found.total, found.links, found.continuation_token)
    except ValueError:
        return "none"


def test_items_as_they_were_are_known_with_all_that_surrounds_them() -> None:
    found = envelope(PAGE, BEFORE)

    assert found == Envelope(ITEMS, 2, json.loads(LINKS), None, digest=BEFORE.digest)
    assert replace(found, digest=None) == envelope(PAGE)


def test_another_item_or_another_salt_is_not_known() -> None:
    for content, before in ((PAGE.replace(b'"2"', b'"3"'), BEFORE), (PAGE, AsBefore(BEFORE.digest, b"other"))):
        found = envelope(content, before)
        assert found
        assert found.digest is None


def test_an_empty_list_is_known_too() -> None:
    content = PAGE.replace(ITEMS, b"[]")

    assert envelope(content, AsBefore(digest(b"[]", SALT), SALT)) == Envelope(
        b"[]", 2, json.loads(LINKS), None, digest=digest(b"[]", SALT)
    )


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + PAGE,
        PAGE.replace(b'"links":{"next"', b'"Links":{"next"'),
        PAGE.replace(b'"totalCount":2', b'"TotalCount":2'),
        PAGE.replace(b'"totalCount":2,', b'"first":{"items":' + ITEMS + b'},"totalCount":2,'),
        PAGE.replace(b'"totalCount":2,', b'"first":{"items":' + ITEMS + b',"links":null},"totalCount":2,'),
        b'{"first":{"items":' + ITEMS + b',"links":{}},"items":[]}',
        b'{"first":{"items":' + ITEMS + b',"links":{}},"items":[{"id":"3"}]}',
        b'{"items":[{"id":"3"}],"items":' + ITEMS + b',"links":{}}',
        b'{"items":' + ITEMS + b',"links":{},"items":[{"id":"3"}]}',
        b'{"items":' + ITEMS + b',"links":{}} and more',
        b'[{"items":' + ITEMS + b',"links":{}}]',
        b'{"a":"\\"items\\":[1],\\"links\\":","items":' + ITEMS + b',"links":{}}',
        b'{"x\\"items":' + ITEMS + b',"links":{}}',
        b'{"items":' + ITEMS + b"}",
        b'"items":' + ITEMS + b',"links":{}',
        b"",
    ],
)
def test_whatever_stands_around_them_is_read_as_if_nothing_were_known(content: bytes) -> None:
    assert read(content, BEFORE) == read(content)


def test_a_page_with_one_byte_lost_or_changed_is_read_as_if_nothing_were_known() -> None:
    for place in range(len(PAGE)):
        for instead in (b"", b"]", b'"', b"}", b"\xff"):
            content = PAGE[:place] + instead + PAGE[place + 1 :]
            assert read(content, BEFORE) == read(content), content
