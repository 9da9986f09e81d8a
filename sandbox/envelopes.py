"""What Partner Center wraps its answers in: links, collections, errors."""

from __future__ import annotations

import json
from typing import Any

from werkzeug import Response

from sandbox.asks import reply

JSON_TYPE = "application/json; charset=utf-8"


def refusal(status: int, code: int | str, description: str) -> Response:
    """Microsoft's classic error body."""
    return reply({"code": code, "description": description, "data": [], "source": "PartnerFD"}, status)


def link(uri: str, headers: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {"uri": uri, "method": "GET", "headers": headers or []}


def collection(total: int, listed: str, links: dict[str, Any] | None) -> bytes:
    """`listed` is JSON already: five hundred customers as objects would cost ten times as much."""
    tail = ({"links": links} if links else {}) | {"attributes": {"objectType": "Collection"}}
    return f'{{"totalCount":{total},"items":{listed},{json.dumps(tail)[1:]}'.encode()


def as_json(value: object) -> str:
    """JSON as Partner Center sends it, without a space."""
    return json.dumps(value, separators=(",", ":"))
