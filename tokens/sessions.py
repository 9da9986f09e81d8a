"""What clients send through: something like a session of requests that adds a token and never shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import requests

from tokens import challenges, outside
from tokens.errors import Transient
from tokens.http import same_origin
from tokens.secret import Secret


class Gate(Protocol):
    def __call__(self) -> None: ...


class Traffic(Protocol):
    """
    Paces what a session sends; asked from any thread. `before…` may wait for some seconds.

    :raises Transient: nothing may leave now, and waiting here would take too long
    """

    def before_token(self) -> None:
        """A token is about to be had from Entra."""

    def after_token(self, failure: Transient | None) -> None:
        """It was, or could not be had now."""

    def before(self, address: str) -> None:
        """A request is about to leave."""

    def after(self, address: str, response: requests.Response | None) -> None:
        """It was answered, whatever the status; None: nothing came back."""


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
        traffic: Traffic | None = None,
        is_stale: Callable[[requests.Response], bool] | None = None,
    ) -> None:
        """
        `bearer_with` gives another token in place of one that an API refused, made with the claims it asked for.

        `is_stale` says of a 401 that a new token may help; what was read is then read once more.
        """
        self.root = root
        self._cloud = cloud
        self._gate = gate
        self._bearer = bearer
        self._forget_bearer = forget_bearer
        self._bearer_with = bearer_with
        self._traffic = traffic
        self._is_stale = is_stale

    def get(self, url: str, **options: Any) -> requests.Response:
        return self.request("GET", url, **options)

    def request(
        self, method: str, url: str, *, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        """
        Send to a path, or to an absolute address on the audience's own origin; a claims challenge is answered once.

        Where a 401 may be the token's, a GET is sent once more with a new one.

        :raises Stopped: the gate is shut
        :raises HostRefused: the address lies elsewhere; nothing was sent
        :raises ChallengedAgain: the API asks for further proof even of a token that has it
        :raises Transient, Permanent: no token could be had, or nothing came back
        """
        address = same_origin(self.root, url)
        outside.give_back_connections()  # the token may come from another thread, which needs one to mint it
        bearer = self._bearer()

        def send(with_token: Secret) -> requests.Response:
            authorized = {**(headers or {}), "Authorization": f"Bearer {with_token.reveal()}"}
            network = outside.network(self._cloud)

            def past_the_gate() -> requests.Response:
                self._gate()
                with network.last_word(self._gate):
                    return network.request(method, address, headers=authorized, **options)

            return self._paced(address, past_the_gate)

        def send_again(claims: str = "") -> requests.Response:
            nonlocal bearer
            bearer = self._bearer_with(bearer, claims)
            return send(bearer)

        try:
            response = challenges.answer_once(send(bearer), send_again=send_again)
            if method == "GET" and response.status_code == 401 and self._is_stale and self._is_stale(response):
                response = challenges.answer_once(send_again(), send_again=send_again)
        except challenges.ChallengedAgain:
            self._forget_bearer()
            raise
        if response.status_code == 401:
            self._forget_bearer()  # the next send mints anew; the caller decides whether there is one
        return response

    def _paced(self, address: str, send: Callable[[], requests.Response]) -> requests.Response:
        """Wait for our turn, and tell afterwards what came back."""
        if self._traffic is None:
            return send()
        self._traffic.before(address)
        try:
            response = send()
        except Transient:
            self._traffic.after(address, None)
            raise
        self._traffic.after(address, response)
        return response


class Probe(ApiSession):
    """A session for a grant that is in memory only, while consent is being checked."""

    scopes: frozenset[str]
    authentication_methods: frozenset[str] | None
