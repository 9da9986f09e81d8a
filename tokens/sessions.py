"""What clients send through: something like a session of requests that adds a token and never shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import requests

from tokens import challenges, outside
from tokens.http import same_origin
from tokens.secret import Secret


class Gate(Protocol):
    def __call__(self) -> None: ...


class ApiSession:
    """Sends requests to one audience's API; each send passes the gate. It never shows the token it adds."""

    def __init__(
        self,
        *,
        cloud: str,
        root: str,
        gate: Gate,
        bearer: Callable[[], Secret],
        forget_bearer: Callable[[], None],
        bearer_with: Callable[[Secret, str], Secret],
    ) -> None:
        """`bearer_with` gives another token in place of one that an API refused, made with the claims it asked for."""
        self.root = root
        self._cloud = cloud
        self._gate = gate
        self._bearer = bearer
        self._forget_bearer = forget_bearer
        self._bearer_with = bearer_with

    def get(self, url: str, **options: Any) -> requests.Response:
        return self.request("GET", url, **options)

    def request(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        """
        Send to a path, or to an absolute address on the audience's own origin; a claims challenge is answered once.

        :raises Stopped: the gate is shut
        :raises HostRefused: the address lies elsewhere; nothing was sent
        :raises ChallengedAgain: the API asks for further proof even of a token that has it
        :raises Transient, Permanent: no token could be had, or nothing came back
        """
        address = same_origin(self.root, url)
        bearer = self._bearer()

        def send(with_token: Secret) -> requests.Response:
            self._gate()
            authorized = {**(headers or {}), "Authorization": f"Bearer {with_token.reveal()}"}
            network = outside.network(self._cloud)
            with network.last_word(self._gate):
                return network.request(method, address, headers=authorized, **options)

        try:
            response = challenges.answer_once(
                send(bearer), send_again=lambda claims: send(self._bearer_with(bearer, claims))
            )
        except challenges.ChallengedAgain:
            self._forget_bearer()
            raise
        if response.status_code == 401:
            self._forget_bearer()  # the next send mints anew; the caller decides whether there is one
        return response


class Probe(ApiSession):
    """A session for a grant that is in memory only, while consent is being checked."""

    scopes: frozenset[str]
    authentication_methods: frozenset[str] | None
