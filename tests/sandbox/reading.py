"""Reading whole lists as a good client would, and comparing shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.sandbox.conftest import PC, Browser

LIST = f"{PC}/v1/customers?size=500"
Body = dict[str, Any]


def body_of(content: bytes) -> Body:
    body: Body = json.loads(content.decode("utf-8-sig"))
    return body


def following(page: Body) -> dict[str, str] | None:
    """The header that asks for the next page; None on the last one."""
    if "continuationToken" in page:
        return {"MS-ContinuationToken": page["continuationToken"]}
    link = page.get("links", {}).get("next")
    return {header["key"]: header["value"] for header in link["headers"]} if link else None


def follow(browser: Browser, token: str, url: str = LIST, most: int = 30) -> list[Body]:
    """Every page of a list, but not more than `most`."""
    pages = [body_of(browser.get(url, token).content)]
    while (headers := following(pages[-1])) and len(pages) < most:
        answer = browser.get(f"{url}&seekOperation=Next", token, **headers)
        assert answer.status_code == 200, answer.text
        pages.append(body_of(answer.content))
    return pages


def ids(pages: list[Body]) -> list[str]:
    return [item["id"] for page in pages for item in page["items"]]


def keys(value: object, path: str = "") -> set[str]:
    """Every path of property names in a document."""
    if isinstance(value, dict):
        return {f"{path}.{name}" for name in value} | {k for n, v in value.items() for k in keys(v, f"{path}.{n}")}
    return {k for item in value for k in keys(item, f"{path}[]")} if isinstance(value, list) else set()


def recorded(samples: Path, name: str) -> Any:
    """A body out of Microsoft's documents."""
    return json.loads((samples / "bodies_2021" / f"{name}.json").read_text("utf-8-sig"))
