"""
The first look: three pretended partners in three states, made by walking the real way through consent and sync.

Only `runlocal` calls this, under DEBUG, against a stand-in. Safe to call again: what is there already stays.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import requests
from django.conf import settings
from django.db.models import F
from django_otp.plugins.otp_totp.models import TOTPDevice

from consent import flow, invitations
from consent.models import Consent
from partners import jobs, second_factor
from partners.models import Partner, Run, User
from partners.standing import current_token
from tokens import actors
from tokens.models import RefreshToken
from tokens.tenancy import partner_scope, system_scope

DAY = dt.timedelta(days=1)
STAFF = {"security": User.StaffRole.SECURITY, "support": User.StaffRole.SUPPORT}
BY_MICROSOFT = "security@panelvendor.onmicrosoft.test"  # of the vendor's own pretended tenant
STAND_IN = "http://localhost:8400"  # where the stand-in's own commands look for it


@dataclass(frozen=True)
class Pretended:
    """A partner's tenant in the stand-in's first world."""

    tenant_id: str
    name: str

    @property
    def service_account(self) -> str:
        return f"svc-cpv@{self.name.split()[0].lower()}.onmicrosoft.test"


FABRIKAM = Pretended("fab51ca0-0000-4000-8000-000000000001", "Fabrikam")
NORTHWIND = Pretended("0a7b1d00-0000-4000-8000-000000000002", "Northwind Traders")
CONTOSO = Pretended("c0470500-0000-4000-8000-000000000003", "Contoso")


@system_scope("the first look")
def seed(*, base_url: str, sandbox_url: str, say: Callable[[str], None]) -> list[str]:
    """Make the three partners and two of the staff; returns the lines that say what to try."""
    if not _is_ours(sandbox_url):
        return [f"The stand-in at {sandbox_url} does not know the pretended partners; docs/operations.md goes on."]
    say("Preparing three pretended partners ...")
    logging.disable(logging.INFO)  # their runs are no news
    _connected(FABRIKAM)
    _broken(NORTHWIND, sandbox_url)
    contoso = _partner(CONTOSO)
    jobs.plan()  # else the clock would, some minutes later
    password = _staff_password()
    logging.disable(logging.NOTSET)
    return _lines(base_url, contoso, password)


def _is_ours(sandbox_url: str) -> bool:
    """Whether the stand-in holds the first world; others may stand in too, with people of their own."""
    try:
        tenants = requests.get(f"{sandbox_url}/_sandbox/world", timeout=10).json()["tenants"]
        known = {tenant["id"] for tenant in tenants}
    except (requests.RequestException, ValueError, LookupError, TypeError):
        return False
    return {FABRIKAM.tenant_id, NORTHWIND.tenant_id, CONTOSO.tenant_id} <= known


def _lines(base_url: str, contoso: Partner, password: str) -> list[str]:
    python = os.path.relpath(sys.executable, settings.BASE_DIR)
    if current_token(contoso) is None:
        _, invitation = invitations.invite(partner=contoso, by=actors.command("runlocal"))
        first = f"1. Try an invitation: {invitation}  (sign in as {CONTOSO.service_account}, with MFA)"
        second = f"2. See a refusal: the same, but signed in without MFA: {invitation}"
    else:
        first = f"1. Contoso is connected: {base_url}/signin  (sign in as {CONTOSO.service_account})"
        second = "2. For a new invitation to try, stop, delete the folder var and start again."
    where = "" if settings.CPV_SANDBOX_URL == STAND_IN else f" --url {settings.CPV_SANDBOX_URL}"
    by_microsoft = (
        f"5. Or enter it with Microsoft: “Sign in with Microsoft” at {base_url}/admin/  (as {BY_MICROSOFT}, with MFA)"
    )
    return [
        first,
        second,
        f"3. Enter the desk: {base_url}/admin/  (user {' or '.join(STAFF)}, password {password}) "
        f"with the six digits of: {python} manage.py deskcode {next(iter(STAFF))}",
        f"4. Watch a partner go red: {python} -m sandbox scenario token-revoked Fabrikam{where}  "
        f"(sign in at {base_url}/signin as {FABRIKAM.service_account}, press “Sync now”, then reconnect)",
        *([by_microsoft] if settings.CPV_STAFF_ENTRA else []),
    ]


def _partner(pretended: Pretended) -> Partner:
    partner, _ = Partner.objects.get_or_create(
        tenant_id=pretended.tenant_id, offboarded_at=None, defaults={"name": pretended.name, "cloud": "global"}
    )
    return partner


def _connected(pretended: Pretended) -> None:
    """Connected four days ago, synced on each day since and just now."""
    partner = _partner(pretended)
    if current_token(partner):
        return
    _consent(partner, pretended)
    for days_ago in (3, 2, 1, 0):
        _sync(partner)
        Run.objects.filter(partner=partner, started_at__gt=_now() - dt.timedelta(hours=1)).update(
            started_at=F("started_at") - days_ago * DAY, finished_at=F("finished_at") - days_ago * DAY
        )
    with partner_scope(partner):
        partner.customers.update(first_seen_at=F("first_seen_at") - 3 * DAY)
    earlier = 4 * DAY
    RefreshToken.objects.filter(partner=partner).update(reserved_at=F("reserved_at") - earlier)
    Consent.objects.filter(partner=partner).update(at=F("at") - earlier)


def _broken(pretended: Pretended, sandbox_url: str) -> None:
    """Connected and synced once; since then its sign-in no longer carries MFA, and Partner Center says so."""
    partner = _partner(pretended)
    if current_token(partner):
        return
    _consent(partner, pretended)
    _sync(partner)
    scenario = {"name": "mfa-missing", "tenant": pretended.tenant_id}
    requests.post(f"{sandbox_url}/_sandbox/scenario", json=scenario, timeout=10).raise_for_status()
    _sync(partner)


def _consent(partner: Partner, pretended: Pretended) -> None:
    """What a browser would do: begin here, sign in at the stand-in with MFA, agree, come back."""
    browser = secrets.token_urlsafe(32)
    invitation, _ = invitations.invite(partner=partner, by=actors.command("runlocal"))
    address = flow.begin(partner=partner, invitation=invitation, browser=browser, retry_path="/")
    choice = {"account": pretended.service_account, "mfa": "yes", "decision": "accept"}
    # There is no page here that could post a form, so the answer is asked for by address whatever the portal asks for.
    address = address.replace("response_mode=form_post", "response_mode=query")
    answer = requests.post(address, data=choice, allow_redirects=False, timeout=10)
    back = urlsplit(answer.headers["Location"])
    flow.complete(answer=dict(parse_qsl(back.query)), browser=browser)


def _sync(partner: Partner) -> None:
    job = jobs.ensure(partner, "customers", due_now=True)
    jobs.run_job(job.pk)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _staff_password() -> str:
    """
    Two people at the desk, with a second factor already; their password is made once and kept beside the data.

    Only a first look has this: `deskcode`, under DEBUG, stands for the app in their pockets.
    """
    keep = settings.VAR_DIR / "desk-password"
    if not keep.exists():
        with os.fdopen(os.open(keep, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(12))
    password: str = keep.read_text()
    for name, role in STAFF.items():
        user, _ = User.objects.get_or_create(username=name, defaults={"is_staff": True, "name": name.title()})
        user.staff_role = role
        if not user.check_password(password):
            user.set_password(password)
        user.save(update_fields=["staff_role", "password"])
        if not second_factor.is_enrolled(user):
            TOTPDevice.objects.create(user=user, name="A first look", key=second_factor.new_seed())
        # What takes two people takes two who are there for a day (`partners.two_people`).
        User.objects.filter(pk=user.pk).update(created_at=_now() - 4 * DAY)
        TOTPDevice.objects.filter(user=user).update(created_at=_now() - 4 * DAY)
    return password
