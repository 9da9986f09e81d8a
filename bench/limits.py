"""
What no program beats: `python -m bench.limits NAME OPTIONS` reads, parses or copies, and does nothing else.

No Django here; the token is one that the bench asked for before.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
import requests

from bench.clock import WATCHED, clock

PARTNER_CENTER = "api.partnercenter.microsoft.com"
FIRST = "/v1/customers?size=500"
FOLLOWING = f"{FIRST}&seekOperation=Next"
A_DAY = "2026-01-01 00:00:00+00"


class Profile(msgspec.Struct):
    """Of a customer, what the mirror keeps."""

    tenant_id: str = msgspec.field(name="tenantId")
    domain: str
    name: str = msgspec.field(name="companyName")


class Item(msgspec.Struct):
    """One customer of a page."""

    profile: Profile = msgspec.field(name="companyProfile")
    relationship: str = msgspec.field(name="relationshipToPartner")


class Page(msgspec.Struct):
    """One page, without where it leads to."""

    items: list[Item]


PARSER = msgspec.json.Decoder(Page)


class Wire:
    """
    Pages of customers by the library that the product uses, one after the other, from places that are known.

    `requests` reads what has come as it is: reading through its `content` takes a quarter longer.
    """

    def __init__(self, bearer: str, tokens: list[str]) -> None:
        self._http = requests.Session()
        self._http.trust_env = False
        self._url = os.environ["CPV_SANDBOX_URL"]
        self._headers = {"Host": PARTNER_CENTER, "Authorization": f"Bearer {bearer}"}
        self.places = [(FOLLOWING if token else FIRST, token) for token in tokens]
        self.page(*self.places[0])  # the connection is there

    def headers(self, token: str) -> dict[str, str]:
        return self._headers | ({"MS-ContinuationToken": token} if token else {})

    def page(self, address: str, token: str) -> bytes:
        answer = self._http.get(self._url + address, headers=self.headers(token), timeout=30, stream=True)
        answer.raise_for_status()
        return bytes(answer.raw.read(decode_content=True))

    def pages(self) -> Iterator[bytes]:
        return (self.page(*place) for place in self.places)


def fetch(bearer: str, tokens: list[str], size: int, parse: bool) -> dict[str, Any]:
    """Every page fetched, and parsed into the fields that are kept or not at all."""
    wire, items = Wire(bearer, tokens), 0
    figures: dict[str, Any] = {}
    with clock(figures):
        for page in wire.pages():
            items += len(PARSER.decode(page).items) if parse else page.count(b'"companyProfile"')
    assert items == size, items
    return figures


def bare(bearer: str, tokens: list[str], size: int) -> dict[str, Any]:
    """Every page by the standard library's bare connection, which knows no sessions, pools or redirects."""
    wire, items = Wire(bearer, tokens), 0
    connection = http.client.HTTPConnection(urlsplit(os.environ["CPV_SANDBOX_URL"]).netloc, timeout=30)
    figures: dict[str, Any] = {}
    with clock(figures):
        for address, token in wire.places:
            connection.request("GET", address, headers=wire.headers(token))
            items += connection.getresponse().read().count(b'"companyProfile"')
    assert items == size, items
    return figures


class Twin:
    """A table with the columns and indexes of the mirror's, and no policy, trigger or foreign key."""

    def __init__(self, table: str) -> None:
        self.connection = psycopg.connect(os.environ[WATCHED])
        found = self.connection.execute(
            "SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = %s"
            " AND is_identity = 'NO' ORDER BY ordinal_position",
            [table],
        ).fetchall()
        self._rest = {name: _filling(kind) for name, kind, nullable in found if nullable == "NO"}
        self.into = f"COPY {table} ({', '.join(self._rest)}) FROM STDIN"
        self.connection.commit()

    def lines(self, page: bytes) -> str:
        """The page's rows as COPY takes them."""
        text = "\t".join(f"%({name})s" for name in self._rest) + "\n"
        return "".join(text % (self._rest | _row(item)) for item in PARSER.decode(page).items)


def _filling(kind: str) -> str:
    """What a column takes that no page fills; a hash as long as the mirror's."""
    if kind.startswith("timestamp"):
        return A_DAY
    return {"bigint": "1", "integer": "1", "bytea": r"\\x" + "5a" * 16, "boolean": "f", "jsonb": "{}"}.get(kind, "")


def _row(item: Item) -> dict[str, str]:
    profile = item.profile
    return {
        "tenant_id": profile.tenant_id,
        "name": profile.name,
        "name_key": profile.name.lower(),
        "domain": profile.domain,
        "relationship": item.relationship,
    }


def copy(bearer: str, tokens: list[str], size: int, table: str, read: bool) -> dict[str, Any]:
    """Rows copied into the empty twin: ready ones at once, or page after page as they are read and parsed."""
    wire, twin = Wire(bearer, tokens), Twin(table)
    twin.connection.execute(f"TRUNCATE {table}")
    twin.connection.commit()
    ready: Iterable[str] = [] if read else [twin.lines(page) for page in wire.pages()]
    figures: dict[str, Any] = {}
    with clock(figures), twin.connection.cursor() as cursor:
        with cursor.copy(twin.into) as stream:
            for lines in (twin.lines(page) for page in wire.pages()) if read else ready:
                stream.write(lines)
        twin.connection.commit()
    found = twin.connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - our own twin
    assert found == (size,), found
    return figures


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))  # noqa: T201 - read by bench.ground
