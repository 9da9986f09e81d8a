"""Entra sign-in and token requests, in typed functions around MSAL."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import msal
import requests

from tokens import id_token
from tokens.clouds import Cloud
from tokens.connections import ask_for_the_last_word
from tokens.credential import AppRegistration, InUse, Proof
from tokens.discovery import Discovery
from tokens.errors import Failure
from tokens.http import Network, retry_after
from tokens.id_token import BadIdToken, Identity, KeySet, authentication_methods
from tokens.refusals import (
    AnswerMismatch,
    BlockedByPartner,
    ConsentRequired,
    EntraUnavailable,
    NoSuchTenant,
    OurFault,
    Refused,
    Seen,
    answered,
    guid,
    is_about_credential,
    misdirected,
    refusal,
    unusable,
)
from tokens.refused_requests import refuse_retired
from tokens.secret import Secret

__all__ = [
    "AnswerMismatch",
    "AppRegistration",
    "BadIdToken",
    "BlockedByPartner",
    "ConsentRequired",
    "Entra",
    "EntraUnavailable",
    "Grant",
    "Identity",
    "NoSuchTenant",
    "OurFault",
    "Refused",
    "authentication_methods",
]

_OFFLINE = "offline_access"
_AUTHORIZE = "/oauth2/v2.0/authorize"
_ADMIN_CONSENT = "/v2.0/adminconsent"


def _unnoted() -> None:
    """Nobody keeps a ledger of this request."""


@dataclass(frozen=True)
class Grant:
    """What Entra handed out; `expires_in` is in seconds and counts from the answer."""

    refresh_token: Secret | None = field(repr=False)
    access_token: Secret = field(repr=False)
    id_token: Secret | None = field(repr=False)
    scopes: frozenset[str]
    expires_in: int
    correlation_id: str


class Entra:
    """
    The sign-in service of one cloud for one app registration; safe between threads.

    It redeems what a person consented to and offers nothing that needs no person (no client_credentials). Where Entra
    refuses one of two certificates, `credential` moves on to the other, and asking once more asks with that.
    """

    def __init__(
        self,
        *,
        network: Network,
        cloud: Cloud,
        app: AppRegistration,
        authorization_hosts: frozenset[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        `authorization_hosts`: further hosts, with or without port, the browser may be sent to (a stand-in's).

        `clock` counts seconds and decides when endpoints and signing keys are read again.
        """
        self._network, self._cloud, self._app = network, cloud, app
        self._authorization_hosts = authorization_hosts or frozenset()
        self.credential = InUse(app.proofs)
        self._discovery = Discovery(network, cloud, clock)
        self._keys = KeySet(network, cloud, clock)

    def begin(
        self,
        *,
        tenant: str,
        scopes: Sequence[str],
        redirect_uri: str,
        prompt: str | None = "select_account",
        login_hint: str | None = None,
        response_mode: str = "query",
        offline_access: bool = True,
        claims: str | None = None,
        max_age: int | None = None,
    ) -> dict[str, Any]:
        """
        Start an authorization code flow with PKCE and nonce; send the browser to its "auth_uri".

        The flow is a secret to keep, encrypted, until `redeem_code`; it holds JSON types only. Without
        `offline_access` no refresh token comes of it, and with no scopes besides nothing but who the user is.
        `max_age` asks that they proved it within so many seconds; the id_token then has `auth_time`, for the caller
        to check.
        https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow
        """
        refuse_retired(scopes)
        _, app = self._msal(tenant, offline_access=offline_access)
        self._check_authorization_endpoint(app.authority.authorization_endpoint)
        flow: dict[str, Any] = app.initiate_auth_code_flow(
            list(scopes),
            redirect_uri=redirect_uri,
            prompt=prompt,
            login_hint=login_hint,
            response_mode="form_post",
            claims_challenge=claims,
        )
        # MSAL warns about any other mode through the process-wide `warnings`, which no thread can silence for itself.
        # Nor is it told of `max_age`: it would call what it finds about `auth_time` a wrong nonce.
        wanted = {"response_mode": response_mode} | ({} if max_age is None else {"max_age": str(max_age)})
        return flow | {"auth_uri": _asking(flow["auth_uri"], wanted)}

    def admin_consent_address(self, *, tenant: str, scopes: Sequence[str], redirect_uri: str, state: str) -> str:
        """
        Where an administrator approves these scopes for everybody in the tenant; no code and no proof comes of it.

        It lies beside the discovered authorization endpoint.
        https://learn.microsoft.com/entra/identity-platform/v2-admin-consent

        :raises Refused: Entra does not know the tenant
        :raises EntraUnavailable: try again later
        """
        refuse_retired(scopes)
        endpoint = str(json.loads(self._discovery.document(tenant))["authorization_endpoint"])
        self._check_authorization_endpoint(endpoint)
        address = urlsplit(endpoint)
        base, found, rest = address.path.rpartition(_AUTHORIZE)
        if not found or rest:
            raise misdirected("authorization endpoint", own_host=self._cloud.login_host)
        query = {
            "client_id": self._app.client_id,
            "scope": " ".join(scopes),
            "redirect_uri": redirect_uri,
            "state": state,
        }
        return address._replace(path=base + _ADMIN_CONSENT, query=urlencode(query)).geturl()

    def redeem_code(
        self,
        *,
        flow: Mapping[str, Any],
        answer: Mapping[str, str],
        tenant: str,
        scopes: Sequence[str],
        leaving: Callable[[], None] = _unnoted,
    ) -> Grant:
        """
        Spend the code in the browser's answer; `scopes` are a subset of the flow's for one audience, [] for openid.

        `tenant` is the one the flow began with: a code is valid there only. Entra's copy of the nonce is checked
        when the id_token goes through `validate` with `flow["nonce"]`. `leaving` is called just before the request
        leaves; after a failure without that, nothing was spent.

        :raises AnswerMismatch: another attempt's state, or no code
        :raises Refused: Entra or the user said no
        :raises EntraUnavailable: try again later
        """
        self._check_answer(flow, answer)
        wire, app = self._msal(tenant, offline_access=_OFFLINE in flow["scope"], leaving=leaving)
        # Only these two: MSAL would decode further fields, and they come from the address bar.
        return self._granted(
            wire,
            lambda: app.acquire_token_by_auth_code_flow(
                dict(flow), {"state": answer["state"], "code": answer["code"]}, scopes=list(scopes)
            ),
        )

    def redeem_refresh_token(
        self,
        *,
        refresh_token: Secret,
        tenant: str,
        scopes: Sequence[str],
        claims: str | None = None,
        leaving: Callable[[], None] = _unnoted,
    ) -> Grant:
        """
        Spend a refresh token at a tenant for scopes of one audience; the grant may or may not bring its successor.

        https://learn.microsoft.com/entra/identity-platform/refresh-tokens

        `leaving` is called just before the request leaves; after a failure without that, nothing was spent.

        :raises Refused: Entra said no
        :raises EntraUnavailable: try again later
        """
        wire, app = self._msal(tenant, offline_access=True, leaving=leaving)
        body = {"claims": claims} if claims else {}
        return self._granted(
            wire, lambda: app.acquire_token_by_refresh_token(refresh_token.reveal(), list(scopes), data=body)
        )

    def ready_to_validate(self) -> None:
        """
        Make sure that an id_token can be validated, before something is spent for it.

        :raises EntraUnavailable: no signing keys
        """
        self._keys.have_some()

    def validate(self, id_token_: Secret, *, nonce: str | None, now: float | None = None) -> Identity:
        """
        Return who the id_token is about; `nonce` is `flow["nonce"]`, None only after `redeem_refresh_token`.

        :raises BadIdToken: `reason` says why
        :raises EntraUnavailable: no signing keys
        """
        return id_token.validate(self._keys, self._cloud, self._app.client_id, id_token_, nonce=nonce, now=now)

    def _msal(
        self, tenant: str, *, offline_access: bool, leaving: Callable[[], None] = _unnoted
    ) -> tuple["_Wire", Any]:
        # New each time: MSAL keeps refresh tokens, and replays a refusal for 60 seconds, for as long as an app lives.
        proof = self.credential.proof
        wire = _Wire(self._network, self._discovery, tenant, proof, leaving)
        app = msal.ConfidentialClientApplication(
            self._app.client_id,
            client_credential=proof.for_msal(),
            authority=self._cloud.authority(tenant),
            instance_discovery=False,
            azure_region=False,  # or an environment variable could change the token endpoint
            token_cache=_Forgetful(),
            http_client=wire,
            exclude_scopes=None if offline_access else [_OFFLINE],
        )
        return wire, app

    def _check_authorization_endpoint(self, endpoint: str) -> None:
        address = urlsplit(endpoint)
        if {address.netloc, address.hostname} & self._authorization_hosts:
            return
        if (address.scheme, address.netloc) != ("https", self._cloud.login_host):
            raise misdirected("authorization endpoint", own_host=self._cloud.login_host, host=address.netloc)

    def _check_answer(self, flow: Mapping[str, Any], answer: Mapping[str, str]) -> None:
        if not answer.get("state") or answer["state"] != flow["state"]:
            raise AnswerMismatch("The answer belongs to another attempt.", code="state")
        if answer.get("error"):
            raise refusal({name: answer.get(name, "") for name in ("error", "error_description")}, Seen())
        if not answer.get("code"):
            raise AnswerMismatch("The answer brings no code.", code="no-code")

    def _granted(self, wire: "_Wire", ask: Callable[[], dict[str, Any]]) -> Grant:
        self._network.before_send()  # before MSAL is entered, so that what it raises comes out unchanged
        try:
            answer = ask()
            if "error" in answer:
                raise self._noted(refusal(answer, wire.seen), wire.proof)
            return _grant(answer, wire.seen.correlation_id)
        # "from None": the originals hold request bodies, nonces, or pieces of the answer.
        except requests.RequestException:
            raise EntraUnavailable("Entra could not be reached.", code="unreachable") from None
        except RuntimeError:
            raise BadIdToken("nonce") from None  # what MSAL raises when the id_token brings another nonce
        except (ValueError, LookupError, TypeError, AttributeError):
            raise unusable(wire.seen) from None

    def _noted(self, failure: Failure, proof: Proof) -> Failure:
        if is_about_credential(failure):
            self.credential.give_way(proof)
        return failure


class _Forgetful(msal.TokenCache):  # type: ignore[misc]  # msal has no types
    """A token cache that keeps nothing: our own cache is bounded, and a stored refresh token would outlive a kill."""

    def add(self, event: Any, now: Any = None) -> None:
        return None


@dataclass(frozen=True)
class _Reply:
    """An answer in the shape MSAL reads."""

    status_code: int
    text: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class _Wire:
    """
    MSAL's `http_client` for one redemption.

    It takes everything that is not a clear yes or no out of MSAL's hands: MSAL loses the body of a 5xx, logs the
    body of what is not JSON, and would replay a 200 that carries Retry-After.
    """

    def __init__(
        self, network: Network, discovery: Discovery, tenant: str, proof: Proof, leaving: Callable[[], None]
    ) -> None:
        self._network, self._discovery, self._tenant, self.proof = network, discovery, tenant, proof
        self._leaving = leaving
        self.seen = Seen()

    def get(self, url: str, **kwargs: Any) -> _Reply:
        # With instance discovery off, the tenant's openid-configuration is all that MSAL ever gets.
        return _Reply(200, self._discovery.document(self._tenant))

    def post(self, url: str, **kwargs: Any) -> _Reply:
        # The document, or a managed identity's proof, may have been fetched meanwhile, over a connection open by now.
        ask_for_the_last_word()
        self._leaving()
        response = self._network.session.post(url, **kwargs)
        self.seen = Seen(response.status_code, retry_after(response), guid(kwargs["headers"]["client-request-id"]))
        return _Reply(response.status_code, json.dumps(answered(response, self.seen)))

    def close(self) -> None:
        """Do nothing: the connections belong to the network."""


def _asking(auth_uri: str, wanted: dict[str, str]) -> str:
    address = urlsplit(auth_uri)
    return address._replace(query=urlencode(dict(parse_qsl(address.query)) | wanted)).geturl()


def _grant(answer: Mapping[str, Any], correlation_id: str) -> Grant:
    """:raises ValueError, KeyError, TypeError: the answer lacks what a grant needs"""
    refresh_token, id_token_ = answer.get("refresh_token"), answer.get("id_token")
    return Grant(
        refresh_token=Secret(refresh_token) if refresh_token else None,
        access_token=Secret(answer["access_token"]),
        id_token=Secret(id_token_) if id_token_ else None,
        scopes=frozenset(answer.get("scope", "").split()),
        expires_in=_lifetime(answer),
        correlation_id=correlation_id,
    )


def _lifetime(answer: Mapping[str, Any]) -> int:
    """Seconds; the v1 shape has numbers as strings, and may name the end instead (seconds since 1970)."""
    if "expires_in" in answer:
        return int(answer["expires_in"])
    return int(answer["expires_on"]) - int(time.time())
