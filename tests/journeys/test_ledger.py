"""The ledger has one line for each token request, those that never left too."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.utils import timezone

from partners import jobs
from partners.models import Job, Partner
from sandbox import demo
from tests.conftest import CONTOSO, SERVICE
from tokens import broker, gate, rotation
from tokens.actors import SYSTEM
from tokens.clouds import Audience
from tokens.errors import Failure
from tokens.models import RefreshToken, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)


def token_requests(world: Any) -> int:
    """What our application asked Entra for; the vault's identities ask too, and have no business in the ledger."""
    asked = [call for call in world.calls if call.service == "entra" and call.path.endswith("/token")]
    return sum(f"/{demo.VENDOR_TENANT_ID}/" not in call.path for call in asked)


def everything(person: Any, world: Any, url: str, contoso: Any) -> None:
    """Refusals, a consent, syncs, rotation, a customer's tenant, outages, a revocation, a reconnect, a sign-in."""
    person.connect(url, SERVICE, mfa=False)
    person.connect(url, SERVICE)
    token = RefreshToken.objects.select_related("partner").get()
    for fault in ("", "503", "AADSTS7000222", "AADSTS90033"):
        broker.forget()
        if fault:
            world.fail("entra", fault, times=1, path=CONTOSO)
        Job.objects.update(next_run_at=timezone.now(), claimed_until=None)
        jobs.run_job(Job.objects.get().pk)
    rotation.rotate(token.pk)
    what_never_leaves(world, token)
    broker.forget()
    customer = contoso.customers.at(0).tenant_id
    with_customer(token, customer)
    contoso.application_consents.add(customer)
    with_customer(token, customer)
    contoso.revoke()
    rotation.rotate(token.pk)
    person.connect("/connection/renew", SERVICE)
    person.portal.post("/signout")
    person.sign_in(SERVICE)


def what_never_leaves(world: Any, token: RefreshToken) -> None:
    """The vault is away, nobody was asked for this audience, a purpose has no business there, a stop comes between."""
    broker.forget()
    world.vault_fault("get", "503", times=1)
    explained(token, Audience.PARTNER_CENTER)
    explained(token, Audience.ARM)
    explained(token, Audience.GRAPH, purpose="sync.customers")

    def stop(_seconds: float) -> None:
        world.latency.clear()
        Partner.objects.update(suspended_at=timezone.now())
        gate.forget()

    world.latency["vault"], world.sleep = 1, stop
    explained(token, Audience.PARTNER_CENTER)
    Partner.objects.update(suspended_at=None)


def explained(token: RefreshToken, audience: Audience, *, purpose: str = "token.explain") -> None:
    with pytest.raises(Failure):
        broker.session(token, audience, purpose=purpose, actor=SYSTEM).get("/")


def with_customer(token: RefreshToken, tenant: str) -> None:
    session = broker.session(token, Audience.GRAPH, purpose="token.explain", actor=SYSTEM, tenant=uuid.UUID(tenant))
    try:
        session.get("/v1.0/me")
    except Failure:
        return


def test_every_token_request_has_its_line_and_no_line_is_without_one(person, invited, contoso, world):
    everything(person, world, invited[1], contoso)

    assert token_requests(world) > 10
    assert TokenUse.objects.exclude(outcome="withheld").count() == token_requests(world)
    withheld = TokenUse.objects.filter(outcome="withheld").order_by("pk").values_list("code", flat=True)
    assert list(withheld) == ["vault-503", "audience-not-asked", "purpose", "stopped"]
    assert not TokenUse.objects.filter(outcome="sent").exists(), "each line says how it ended"
