"""Who signed in, what was handed out for it, and who agreed to what."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from sandbox.directory import Account, Clock, Tenant
from sandbox.scopes import Asked
from sandbox.state import Store

CODE_SECONDS = 600  # "The authorization code is short lived, typically about 10 minutes"
REFRESH_SECONDS = 90 * 86_400  # Microsoft's page "Refresh tokens in the Microsoft identity platform"
REFRESH_MODES = {
    "entra": "a spent refresh token stays as good as it was; Microsoft's page just named",
    "grace": "a spent refresh token works for a while longer, then never again",
    "strict": "a refresh token works once; who brings a spent one ends the whole sign-in, its successors included",
}
GRACE_SECONDS = 60
EVERYBODY = "*"


@dataclass
class Session:
    """One sign-in. Every refresh token that comes out of it shares its fate."""

    sid: str
    tenant_id: str
    oid: str
    client_id: str
    mfa: bool
    signed_in_with_mfa: bool
    at: float
    offline: bool = False
    revoked: bool = False
    authenticated_at: float = 0.0  # when somebody proved who they are; a silent sign-in rests on an earlier one


@dataclass
class Code:
    """An authorization code; `segment` is the tenant part of the address it was asked at."""

    value: str
    session: Session
    segment: str
    redirect_uri: str
    asked: Asked = field(repr=False)
    nonce: str | None = None
    challenge: str | None = None
    contexts: tuple[str, ...] = ()
    tells_when: bool = False  # the id_token says when somebody proved who they are
    at: float = 0.0
    redeemed: bool = False


@dataclass
class Refresh:
    """A refresh token. `spent_at` matters only in the modes "grace" and "strict"."""

    value: str = field(repr=False)
    sid: str = ""
    at: float = 0.0
    spent_at: float | None = None


class Ledger:
    """Sessions, codes, refresh tokens and consents; every change is written through to the store."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self._clock = clock
        self._store = store
        self._lock = threading.RLock()
        self.sessions: dict[str, Session] = {}
        self.codes: dict[str, Code] = {}
        self.refreshes: dict[str, Refresh] = {}
        self.consents: dict[tuple[str, str, str], set[str]] = {}
        self.removed: dict[tuple[str, str, str], set[str]] = {}

    def restore(self) -> None:
        """Read back what an earlier process kept."""
        for key, row in self._store.rows("session"):
            self.sessions[key] = Session(**row)
        for key, row in self._store.rows("refresh"):
            self.refreshes[key] = Refresh(**row)
        for kind, table in (("consent", self.consents), ("removed", self.removed)):
            for key, row in self._store.rows(kind):
                tenant, who, client = key.split("|")
                table[tenant, who, client] = set(row["scopes"])

    def clear(self) -> None:
        with self._lock:
            for table in (self.sessions, self.codes, self.refreshes, self.consents, self.removed):
                table.clear()

    # sign-ins

    def sign_in(self, account: Account, client_id: str, *, mfa: bool, resting_on: Session | None = None) -> Session:
        """A new sign-in; `resting_on` an earlier one of the same browser it asks nothing and proves nothing anew."""
        sid, now = secrets.token_hex(16), self._clock()
        session = Session(sid, account.tenant_id, account.oid, client_id, mfa, mfa, now)
        session.authenticated_at = resting_on.authenticated_at if resting_on else now
        self.keep(session)
        return session

    def keep(self, session: Session) -> None:
        with self._lock:
            self.sessions[session.sid] = session
            self._store.put("session", session.sid, asdict(session))

    def _of(self, tenant: Tenant, account: Account | None = None) -> list[Session]:
        with self._lock:
            every = list(self.sessions.values())
        return [s for s in every if s.tenant_id == tenant.id and (account is None or s.oid == account.oid)]

    def revoke(self, tenant: Tenant, account: Account | None = None) -> None:
        for session in self._of(tenant, account):
            self.end(session)

    def unrevoke(self, tenant: Tenant) -> None:
        """What Microsoft cannot do: let revoked sessions live again."""
        for session in self._of(tenant):
            session.revoked = False
            self.keep(session)

    def lose_mfa(self, tenant: Tenant) -> None:
        for session in self._of(tenant):
            session.mfa = False
            self.keep(session)

    def regain_mfa(self, tenant: Tenant) -> None:
        for session in self._of(tenant):
            session.mfa = session.signed_in_with_mfa
            self.keep(session)

    # codes and refresh tokens

    def new_code(self, code: Code) -> Code:
        with self._lock:
            self.codes[code.value] = code
        return code

    def redeem(self, code: Code) -> bool:
        """Spend a code; False when somebody else was first."""
        with self._lock:
            first, code.redeemed = not code.redeemed, True
        return first

    def new_refresh(self, session: Session) -> Refresh:
        """A new token for the session. Real ones are opaque, one to two kilobytes long."""
        token = Refresh("1.A" + secrets.token_urlsafe(800), session.sid, self._clock())
        with self._lock:
            self.refreshes[token.value] = token
        self._store.put("refresh", token.value, asdict(token))
        return token

    def is_over(self, token: Refresh, grace: float | None) -> bool:
        """Whether it was spent more than `grace` seconds ago; without one it never is, with 0 it is at once."""
        if grace is None or token.spent_at is None:
            return False
        return not grace or self._clock() - token.spent_at >= grace

    def spend(self, token: Refresh, grace: float | None) -> bool:
        """Use a token; False when it is over. Of several who come at once exactly one is first."""
        with self._lock:
            if self.is_over(token, grace):
                return False
            if token.spent_at is None:
                token.spent_at = self._clock()
        self._store.put("refresh", token.value, asdict(token))
        return True

    def end(self, session: Session) -> None:
        """Revoke one sign-in: everything that came out of it is refused from now on."""
        session.revoked = True
        self.keep(session)

    # consents

    def consented(self, tenant_id: str, oid: str, client_id: str) -> set[str]:
        """Everything this account agreed to, itself or through its organization."""
        with self._lock:
            own = self.consents.get((tenant_id, oid, client_id), set())
            return own | self.consents.get((tenant_id, EVERYBODY, client_id), set())

    def consent(self, tenant_id: str, who: str, client_id: str, scopes: Iterable[str]) -> None:
        key = (tenant_id, who, client_id)
        with self._lock:
            self.consents.setdefault(key, set()).update(scopes)
            self._write("consent", key, self.consents)

    def _write(self, kind: str, key: tuple[str, str, str], table: dict[tuple[str, str, str], set[str]]) -> None:
        self._store.put(kind, "|".join(key), {"scopes": sorted(table[key])})

    def remove_consents(self, tenant: Tenant) -> None:
        """The tenant's administrator deleted the application: nothing is agreed any more."""
        self._move(tenant, "consent", self.consents, "removed", self.removed)

    def give_consents_back(self, tenant: Tenant) -> None:
        self._move(tenant, "removed", self.removed, "consent", self.consents)

    def _move(
        self,
        tenant: Tenant,
        out_of: str,
        source: dict[tuple[str, str, str], set[str]],
        into: str,
        target: dict[tuple[str, str, str], set[str]],
    ) -> None:
        with self._lock:
            for key in [key for key in source if key[0] == tenant.id]:
                target.setdefault(key, set()).update(source.pop(key))
                self._store.delete(out_of, "|".join(key))
                self._write(into, key, target)
