"""Our own validation of id_tokens: MSAL decodes them and checks nothing but the nonce."""

import hashlib
import hmac
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import jwt
import jwt.types

from tokens.clouds import Cloud
from tokens.errors import Failure, Permanent
from tokens.http import Network
from tokens.refusals import EntraUnavailable
from tokens.secret import Secret

LEEWAY = 120  # seconds
KEYS_LAST = 24 * 3600  # seconds
KEYS_AGAIN = 60  # seconds between two looks for a key we do not know
KEYS_AGAIN_AFTER_NONE = 5  # seconds, while we have no key at all
KEYS_DEADLINE = 10.0  # seconds; others wait behind this request
PERSONAL_TENANT = UUID("9188040d-6c67-4c5b-b112-36a304b66dad")
_REQUIRED = ("exp", "iat", "nbf", "iss", "aud", "tid", "oid", "sub")

Reason = Literal[
    "malformed",
    "algorithm",
    "unknown_key",
    "signature",
    "issuer",
    "audience",
    "expired",
    "not_yet_valid",
    "nonce",
    "missing_claim",
    "personal",
]


class BadIdToken(Permanent):
    """The id_token proves nothing; `reason` is one word for the log."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"The id_token was not accepted: {reason}.", code=f"id-token-{reason}")
        self.reason = reason


@dataclass(frozen=True)
class Identity:
    """
    Who signed in. Rows are keyed on (cloud, tenant_id, object_id); username and name are for display only.

    https://learn.microsoft.com/entra/identity-platform/id-token-claims-reference
    """

    cloud: str
    tenant_id: UUID
    object_id: UUID
    username: str
    name: str
    is_guest: bool
    methods: frozenset[str] | None = None  # `amr`; None where the token has none, as v2 tokens have by default
    contexts: frozenset[str] = frozenset()  # `acrs`: the authentication contexts that were satisfied
    authenticated_at: int | None = None  # `auth_time`, in seconds since 1970
    roles: frozenset[str] = frozenset()  # app roles of our application, as `tenant_id` gave them to its people


@dataclass(frozen=True)
class _Key:
    public: Any
    issuer: str  # may contain {tenantid}; empty when the key names none


class KeySet:
    """The signing keys of one cloud, fetched when needed and kept when fetching fails; safe between threads."""

    def __init__(self, network: Network, cloud: Cloud, clock: Callable[[], float]) -> None:
        self._network, self._clock = network, clock
        # https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-signature
        self._url = f"{cloud.authority('organizations')}/discovery/v2.0/keys"
        self._lock = threading.Lock()
        self._keys: dict[str, _Key] = {}
        self._fetched_at = self._tried_at = float("-inf")

    def find(self, kid: str) -> _Key:
        """
        Return the key of this id.

        :raises BadIdToken: Entra has no such key
        :raises EntraUnavailable: no keys at all
        """
        with self._lock:
            self._see_to(wanted=kid not in self._keys)
            if kid not in self._keys:
                raise BadIdToken("unknown_key")
            return self._keys[kid]

    def have_some(self) -> None:
        """
        Fetch keys if there are none yet, for whoever cannot wait for them once an answer is there.

        :raises EntraUnavailable: no keys at all
        """
        with self._lock:
            self._see_to(wanted=False)

    def _see_to(self, *, wanted: bool) -> None:
        """Fetch where a key is wanted, none is there or they are old; but not again and again."""
        now = self._clock()
        wanted = wanted or not self._keys or now - self._fetched_at > KEYS_LAST
        pause = KEYS_AGAIN if self._keys else KEYS_AGAIN_AFTER_NONE
        if wanted and now - self._tried_at >= pause:
            self._tried_at = now
            self._refresh(now)
        if not self._keys:
            raise EntraUnavailable("Entra's signing keys could not be fetched.", code="jwks")

    def _refresh(self, now: float) -> None:
        try:
            with self._network.fixed_deadline(KEYS_DEADLINE):
                response = self._network.request("GET", self._url)
            entries = response.json()["keys"] if response.status_code == 200 else []
        except (Failure, ValueError, KeyError, TypeError):
            return  # the last good keys stay
        keys = {entry["kid"]: key for entry in entries if (key := _usable(entry))}
        if keys:
            self._keys, self._fetched_at = keys, now


def _usable(entry: Any) -> _Key | None:
    try:
        if entry.get("use", "sig") != "sig" or not isinstance(entry["kid"], str):
            return None
        public = jwt.PyJWK(entry, algorithm="RS256").key
        return _Key(public, str(entry.get("issuer", "")))
    except (AttributeError, KeyError, jwt.PyJWTError):
        return None


def validate(
    keys: KeySet, cloud: Cloud, client_id: str, id_token: Secret, *, nonce: str | None, now: float | None = None
) -> Identity:
    """
    Return who an id_token is about, after checking all of it. `now` is in seconds since 1970.

    `nonce` is the flow's own; Entra got, and returns, its SHA-256 as hex. None skips that check: only for an
    id_token that came with a refreshed access token.
    https://learn.microsoft.com/entra/identity-platform/id-tokens#validate-tokens

    :raises BadIdToken: `reason` says why
    """
    key, claims = _verified(keys, id_token.reveal())
    if any(claims.get(name) in (None, "") for name in _REQUIRED):
        raise BadIdToken("missing_claim")
    tenant_id, object_id = _uuid(claims["tid"]), _uuid(claims["oid"])
    if tenant_id == PERSONAL_TENANT:
        raise BadIdToken("personal")
    _check_origin(claims, key, cloud, client_id)
    _check_times(claims, time.time() if now is None else now)
    if nonce is not None and not hmac.compare_digest(_text(claims, "nonce").encode(), _hashed(nonce)):
        raise BadIdToken("nonce")
    return Identity(
        cloud=cloud.name,
        tenant_id=tenant_id,
        object_id=object_id,
        username=_text(claims, "preferred_username"),
        name=_text(claims, "name"),
        is_guest=_is_guest(claims),
        methods=_words(claims.get("amr")),
        contexts=_words(claims.get("acrs")) or frozenset(),
        authenticated_at=_moment(claims.get("auth_time")),
        roles=_words(claims.get("roles")) or frozenset(),
    )


_SIGNATURE_ONLY: jwt.types.Options = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _verified(keys: KeySet, token: str) -> tuple[_Key, dict[str, Any]]:
    try:
        header = jwt.get_unverified_header(token)
        if header.get("alg") != "RS256":
            raise BadIdToken("algorithm")
        kid = header.get("kid")
        if not isinstance(kid, str):
            raise BadIdToken("unknown_key")
        key = keys.find(kid)
        # Claims are ours to check: PyJWT reads its own clock and cannot know the issuer before the tenant.
        claims = jwt.decode(token, key.public, algorithms=["RS256"], options=_SIGNATURE_ONLY)
    except jwt.InvalidSignatureError:
        raise BadIdToken("signature") from None
    except (jwt.PyJWTError, ValueError):
        raise BadIdToken("malformed") from None
    return key, claims


def _uuid(value: object) -> UUID:
    try:
        if not isinstance(value, str) or len(value) != 36:  # UUID() also takes braces and bare hex
            raise ValueError
        return UUID(value)
    except ValueError:
        raise BadIdToken("malformed") from None


def _check_origin(claims: Mapping[str, Any], key: _Key, cloud: Cloud, client_id: str) -> None:
    expected = cloud.issuer(claims["tid"])
    if claims["iss"] != expected or (key.issuer and key.issuer.replace("{tenantid}", claims["tid"]) != expected):
        raise BadIdToken("issuer")
    if claims["aud"] != client_id:
        raise BadIdToken("audience")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    times = [claims[name] for name in ("exp", "nbf", "iat")]
    if not all(type(moment) in (int, float) and math.isfinite(moment) for moment in times):  # bool is an int, too
        raise BadIdToken("malformed")
    expires, not_before, issued = times
    if now > expires + LEEWAY:
        raise BadIdToken("expired")
    if max(not_before, issued) > now + LEEWAY:
        raise BadIdToken("not_yet_valid")


def _hashed(nonce: str) -> bytes:
    return hashlib.sha256(nonce.encode()).hexdigest().encode()


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "")
    return value if isinstance(value, str) else ""


def _is_guest(claims: Mapping[str, Any]) -> bool:
    """Say whether the user's home is another tenant: `acct` is 1, or the identity provider is not this tenant."""
    home = ("", claims["iss"], f"https://sts.windows.net/{claims['tid']}/")
    return claims.get("acct") in (1, "1") or _text(claims, "idp") not in home


def _words(value: object) -> frozenset[str] | None:
    """A list of words; anything else says nothing."""
    return frozenset(word for word in value if isinstance(word, str)) if isinstance(value, list) else None


def _moment(value: object) -> int | None:
    return value if type(value) is int else None


def authentication_methods(access_token: Secret, *, of: Identity | None = None) -> frozenset[str] | None:
    """
    Return the `amr` of a v1 access token such as Partner Center's, for example {"pwd", "mfa"}; None when unreadable.

    With `of` only where the token names that very person.
    Evidence, never proof: an access token is for its API to judge, and its form may change without notice.
    https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
    """
    try:
        claims = jwt.decode(access_token.reveal(), options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError):
        return None
    if of and (claims.get("tid"), claims.get("oid")) != (str(of.tenant_id), str(of.object_id)):
        return None
    return _words(claims.get("amr"))
