"""A session that answers in the order given, for the wire clients alone."""

from __future__ import annotations

import json
from typing import Any

import requests


class Session:
    """Stands for the broker's; remembers what was asked. Its root is the origin the test speaks to."""

    def __init__(self, root: str, *answers: requests.Response) -> None:
        self.root = root
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []

    def get(self, url: str, *, headers: dict[str, str] | None = None) -> requests.Response:
        return self.request("GET", url, headers=headers)

    def request(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, data: bytes | None = None
    ) -> requests.Response:
        self.asked.append((url, headers or {}))
        return self.answers.pop(0)


def answer(body: Any = None, *, status: int = 200, raw: bytes | None = None, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps(body).encode() if raw is None else raw
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response
