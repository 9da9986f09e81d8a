"""
Thousands of answers that Microsoft never gave: of each batch only the real one is accepted.

Each batch belongs to one attempt that is under way. Whatever comes before its real answer must change nothing, store
nothing, send nothing and fail nowhere; then the real one is accepted, and once.
"""

from __future__ import annotations

import logging
import random
import string
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from consent import invitations
from consent.models import Consent, ConsentAttempt, Invitation, PostedAnswer, digest
from partners.models import Member, Partner, User
from sandbox.directory import Account
from sandbox.world import World
from tests.entra_staff import DOOR, vendor
from tests.plainclient import PlainClient
from tests.pretend import FORM, Person
from tokens import actors
from tokens.models import RefreshToken, SecretVersion, TokenUse

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("uncounted")]
PATHS = {
    "consent": "/connect/callback",
    "signin": "/signin/callback",
    "admin": "/connect/admin-consent/callback",
    "staff": "/admin/microsoft/callback",
}
# What is wrong with a proof of who signed in. `wrong_oid` is not among them: Microsoft may name anybody.
FORGED = (
    "wrong_issuer", "wrong_audience", "wrong_nonce", "wrong_tenant", "expired", "not_yet_valid", "personal",
    "missing_oid", "missing_tid", "unsigned", "hs256", "unknown_key", "forged_key",
)  # fmt: skip
NASTY = (
    "", " ", "\x00", "\ud7ff", "0", "null", "[]", "{}", "True", "' OR 1=1 --", "<script>alert(1)</script>", "%", "%00",
    "%zz", "{{7*7}}", "${x}", "é", "🙂", "a" * 600, "\r\nSet-Cookie: a=b", "=cmd", "https://evil.test/", "../../passwd",
)  # fmt: skip
PROVEN = 10  # answers of each batch whose state counts
REFUSED = {400, 403, 404, 405, 413}


@dataclass
class Attempt:
    """One trip to Microsoft: who makes it, and the real answer."""

    kind: str
    person: Person
    path: str
    fields: dict[str, str]
    begin_again: Callable[[], Attempt]  # the same person sets out once more

    def comes_back(self, fields: dict[str, str] | None = None) -> Any:
        said = {name: text.encode("utf-8", "replace") for name, text in (fields or self.fields).items()}
        return self.person.bring_once(f"{self.path}?{urlencode(said)}")

    def ends(self) -> Any:
        """The real answer, and where that leads to Microsoft in silence, the next one."""
        return self.person.bring(f"{self.path}?{urlencode(self.fields)}")


@dataclass
class Fuzz:
    """Makes attempts and answers to them, the same ones for the same seed."""

    world: World
    mode: str
    dice: random.Random
    seen: Counter[int] = field(default_factory=Counter)
    proven: Counter[str] = field(default_factory=Counter)  # with a state that counts, by what was wrong
    number: int = 0

    def begun(self, kind: str) -> Attempt:
        """A fresh firm, or the vendor's, whose person has been to Microsoft and is about to come back."""
        self.number += 1
        if kind == "staff":
            return self._begun_at_the_desk()
        tenant = self.world.add_tenant(f"f0220000-0000-4000-8000-{self.number:012}", f"Firm {self.number}")
        tenant.add_account(f"svc@firm{self.number}.test", groups={"AdminAgents"}, admin=True)
        partner = Partner.objects.create(cloud="global", tenant_id=tenant.id, name=tenant.name)
        _, url = invitations.invite(partner=partner, by=actors.SYSTEM)
        person, account = Person(PlainClient(), self.world), f"svc@firm{self.number}.test"
        page, form = url, {}
        if kind == "signin":
            Person(PlainClient(), self.world).connect(url, account)
            page, form = "/signin", {"cloud": "global"}
        elif kind == "admin":
            page, form = "/connect/admin-consent", {"invitation": urlsplit(url).path.rpartition("/")[2]}
        return self._away(kind, person, account, page, form)

    def _begun_at_the_desk(self) -> Attempt:
        person, tenant = Person(PlainClient(), self.world), vendor(self.world)
        who = tenant.add_account(f"staff{self.number}@vendor.test", app_roles={"Desk.Support"})
        return self._away("staff", person, who, DOOR, {})

    def _away(self, kind: str, person: Person, who: Account | str, page: str, form: dict[str, str]) -> Attempt:
        back = urlsplit(person.at_microsoft(person.leave(page, **form), who))
        fields = dict(parse_qsl(back.query))
        return Attempt(kind, person, back.path, fields, lambda: self._away(kind, person, who, page, form))

    # --- Answers whose state proves nothing -------------------------------------------------------------------------
    def strange(self, real: Attempt, others: list[str]) -> tuple[str, str, bytes, str]:
        """Method, path, body or query and content type of an answer that must not be believed."""
        fields = dict(real.fields)
        fields["state"] = self._not(fields["state"], others)
        for name in self.dice.sample(sorted(fields), k=self.dice.randrange(len(fields))):
            fields[name] = self._bent(fields[name]) if name != "state" else fields[name]
        pairs = list(fields.items())
        how = self.dice.randrange(12)
        if how == 0:
            pairs = [(name, value) for name, value in pairs if name != "state"]
        elif how == 1:
            pairs.insert(0, ("state", real.fields["state"]))  # the first of two; the last one counts
        elif how == 2:
            pairs += [(self.dice.choice(("answer", "error", "iss", "x", "state[]")), self._bent("x"))]
        elif how == 3:
            pairs = [(self.dice.choice((name.upper(), f" {name}", f"{name}[]")), value) for name, value in pairs]
        self.dice.shuffle(pairs) if how > 3 else None
        text = urlencode([(name, value.encode("utf-8", "replace")) for name, value in pairs])
        if how == 4:
            text = text.replace("=", self.dice.choice(("", "==", "%3D")), 1) + self.dice.choice(
                ("%", "&&", "%ff%fe", ";")
            )
        if how == 5:
            text += f"&x={'a' * self.dice.choice((8_200, 40_000, 270_000))}"
        return self._method(real), self._path(real), text.encode(), self._content_type()

    def _not(self, state: str, others: list[str]) -> str:
        bent = self.dice.choice((self._bent, lambda _text: self.dice.choice(others), self._near))(state)
        return bent if bent != state else state + "x"

    def _near(self, text: str) -> str:
        """One letter away."""
        at = self.dice.randrange(len(text))
        return self.dice.choice((
            text[:at] + text[at + 1 :],
            text[:at] + self.dice.choice(string.ascii_letters) + text[at + 1 :],
            text[:at] + text[at].swapcase() + text[at + 1 :],
            text + self.dice.choice("= \x00A"),
            text[::-1],
            text.strip() * 2,
        ))  # fmt: skip

    def _bent(self, text: str) -> str:
        return self.dice.choice((self._near(text or "x"), self.dice.choice(NASTY), quote(text), text[: len(text) // 2]))

    def _method(self, real: Attempt) -> str:
        usual = "POST" if self.mode == "form_post" and real.kind != "admin" else "GET"
        return usual if self.dice.random() < 0.9 else self.dice.choice(("GET", "POST", "HEAD", "PUT", "DELETE"))

    def _path(self, real: Attempt) -> str:
        return real.path if self.dice.random() < 0.9 else self.dice.choice(sorted(PATHS.values()))

    def _content_type(self) -> str:
        other = ("multipart/form-data", "application/json", "text/plain", "", f"{FORM}; charset=utf-16")
        return FORM if self.dice.random() < 0.9 else self.dice.choice(other)

    # --- Answers whose state counts ---------------------------------------------------------------------------------
    def bent(self, real: Attempt, other: Attempt) -> tuple[str, dict[str, str]]:
        """What is wrong, and the fields of an answer with the very state of an attempt that is not Microsoft's."""
        fields, name = dict(real.fields), "tenant" if real.kind == "admin" else "code"
        wrong = self.dice.choice((name, name, "error", "iss", "admin_consent" if real.kind == "admin" else "id_token"))
        if wrong == "error":
            fields["error"] = self.dice.choice(("access_denied", "interaction_required", "server_error", *NASTY))
            fields |= self.dice.choice(({}, {"error_description": self._bent("AADSTS65004: declined")}))
            fields.pop(self.dice.choice((name, "x")), None)
        elif wrong == "iss":
            host = self.dice.choice(("evil.test", "login.microsoftonline.com.evil.test", "login.chinacloudapi.cn"))
            fields["iss"] = self.dice.choice((f"https://{host}/{uuid.UUID(int=7)}/v2.0", *NASTY))
        elif wrong == "admin_consent":
            fields[wrong] = self.dice.choice(
                ("False", "1", "yes", "T rue", self._near("True") + "x", *set(NASTY) - {"True"})
            )
        elif wrong != "id_token":
            fields[wrong] = self.dice.choice(
                (other.fields.get(wrong, "x"), self._bent(fields[wrong]), fields[wrong][::-1])
            )
            if fields[wrong].lower() == real.fields[wrong].lower():
                fields[wrong] += "x"
        if wrong in ("code", "tenant", "admin_consent") and self.dice.random() < 0.1:
            del fields[wrong]
        return wrong, fields

    def send(self, client: PlainClient, strange: tuple[str, str, bytes, str]) -> int:
        """What we answer in the end, after our own redirect where there is one."""
        method, path, text, content_type = strange
        if method == "GET" or method == "HEAD":
            answer = client.generic(method, path, QUERY_STRING=text.decode())
        else:
            answer = client.generic(method, path, text, content_type)
        while answer.status_code == 303 and answer["Location"].startswith(path):
            answer = client.get(answer["Location"])
        self.seen[answer.status_code] += 1
        return int(answer.status_code)


def stored() -> tuple[object, ...]:
    """Everything an answer could leave behind."""
    models = (Consent, Member, PostedAnswer, RefreshToken, SecretVersion, TokenUse, User)
    return (
        *(model.objects.count() for model in models),
        ConsentAttempt.objects.exclude(claimed_at=None).count(),
        Invitation.objects.exclude(used_at=None).count(),
    )


def is_in(person: Person) -> bool:
    return "_auth_user_id" in person.portal.session


def accepted(attempt: Attempt) -> bool:
    answer = attempt.ends()
    if attempt.kind == "admin":
        return answer.status_code == 200 and "Continue to Microsoft" in answer.content.decode()
    return answer.status_code == 303 and is_in(attempt.person)


def batches(total: int, each: int) -> Iterator[tuple[str, int]]:
    kinds = sorted(PATHS)
    for start in range(0, total, each):
        yield kinds[start // each % len(kinds)], min(each, total - start)


def run(world: World, mode: str, total: int, seed: int) -> Fuzz:
    fuzz = Fuzz(world, mode, random.Random(seed))  # noqa: S311 - dice
    for kind, size in batches(total, each=100):
        real = fuzz.begun(kind)
        stranger = PlainClient()
        elsewhere = fuzz.begun(fuzz.dice.choice(sorted(PATHS)))  # somebody else's, whose state is good for them alone
        others = [elsewhere.fields["state"], *NASTY]
        calls, before = len(world.calls), stored()
        for _ in range(size - 4 - PROVEN):
            client = stranger if fuzz.dice.random() < 0.2 else real.person.portal
            strange = fuzz.strange(real, others)
            status = fuzz.send(client, strange)
            assert status in REFUSED, (status, strange)
        # The very answer, brought by another browser; or to another address.
        by_form = mode == "form_post" and kind != "admin"
        real_answer = urlencode(real.fields).encode()
        assert fuzz.send(stranger, ("POST" if by_form else "GET", real.path, real_answer, FORM)) in REFUSED
        for path in PATHS.values():
            if path != real.path:
                assert fuzz.send(real.person.portal, ("GET", path, real_answer, FORM)) in REFUSED
        assert len(world.calls) == calls, [call.path for call in world.calls[calls:]]
        assert stored() == before
        assert not is_in(real.person)
        assert "_auth_user_id" not in stranger.session

        assert accepted(real), f"the real {kind} answer of a batch"
        after = stored()
        assert fuzz.send(real.person.portal, ("POST" if by_form else "GET", real.path, real_answer, FORM)) in REFUSED
        assert stored() == after
        spent = fuzz.begun(kind)
        for _ in range(PROVEN):
            claimed(fuzz, spent, elsewhere)
            spent = spent.begin_again()
        assert accepted(spent), f"the real {kind} answer after {PROVEN} wrong ones"
    return fuzz


def claimed(fuzz: Fuzz, attempt: Attempt, other: Attempt) -> None:
    """The state is proven and the rest is not Microsoft's: it may be asked once, and is not believed."""
    if attempt.kind == "signin" and fuzz.dice.random() < 0.5:  # the second answer, by which we ask in silence
        attempt = in_silence(attempt)
    wrong, fields = fuzz.bent(attempt, other)
    fuzz.world.id_token_fault = fuzz.dice.choice(FORGED) if wrong == "id_token" else None
    what = wrong, fuzz.world.id_token_fault, attempt.kind, fields
    before, asked = kept(), len(fuzz.world.calls)

    answer = attempt.comes_back(fields)

    fuzz.world.id_token_fault = None
    fuzz.seen[answer.status_code] += 1
    fuzz.proven[wrong] += 1
    assert answer.status_code in {400, 403, 502, 503}, (answer.status_code, what)
    calls = [call.path for call in fuzz.world.calls[asked:]]
    redeemed = [path for path in calls if path.endswith("/token")]
    assert len(redeemed) <= (wrong in ("code", "id_token")), (calls, what)
    assert wrong == "id_token" or calls == redeemed, (calls, what)
    if ConsentAttempt.objects.get(state_hash=digest(attempt.fields["state"])).claimed_at:
        assert attempt.comes_back().status_code in REFUSED, ("the state counts once", what)
    else:
        assert fuzz.mode == "form_post", "a form with a field that is too long is not looked at"
        assert answer.status_code == 400
    assert kept() == before, what
    assert not is_in(attempt.person), what


def in_silence(attempt: Attempt) -> Attempt:
    answer = attempt.comes_back()
    assert answer.status_code == 303
    back = urlsplit(attempt.person.sent_back(attempt.person.microsoft.get(answer["Location"], allow_redirects=False)))
    return replace(attempt, fields=dict(parse_qsl(back.query)))


def kept() -> tuple[int, ...]:
    """What stays only where an answer was believed."""
    models = (Consent, Member, PostedAnswer, RefreshToken, SecretVersion, User)
    return *(model.objects.count() for model in models), Invitation.objects.exclude(used_at=None).count()


@pytest.mark.parametrize("mode", ["query", "form_post"])
@pytest.mark.parametrize("total", [2_600, pytest.param(50_000, marks=pytest.mark.soak)])
def test_of_thousands_of_answers_only_the_real_ones_are_accepted(world, settings, record_property, mode, total):
    settings.CPV_RESPONSE_MODE, settings.CPV_STAFF_ENTRA, settings.CPV_STAFF_CONTEXT = mode, True, "c1"
    settings.CPV_RATE_PER_ADDRESS = settings.CPV_RATE_OVERALL = "1000000/second"
    began = time.monotonic()

    logging.disable(logging.WARNING)  # thousands of refusals would be written down, and kept for a report
    try:
        fuzz = run(world, mode, total, seed=20_261_126)
        assert set(fuzz.proven) == {"code", "tenant", "error", "iss", "admin_consent", "id_token"}
    finally:
        logging.disable(logging.NOTSET)

    said = ", ".join(f"{number} with {status}" for status, number in sorted(fuzz.seen.items()))
    said += f"; {fuzz.proven.total()} of them with a state that counts"
    seconds = time.monotonic() - began
    record_property(
        "figure", f"callbacks: {sum(fuzz.seen.values())} strange answers by {mode} in {seconds:.0f} s: {said}"
    )
