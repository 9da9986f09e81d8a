"""National clouds: whatever is done for a partner goes to its own cloud's addresses, with what we are there."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from consent.models import Invitation
from consent.refusal_words import REASONS
from partners import jobs, lifecycle
from partners.models import Customer, Job, Partner
from sandbox import demo
from sandbox.directory import read_certificates
from tests.conftest import CONTOSO, SERVICE
from tests.pem import Pair, pair
from tests.pretend import Person, text_of
from tokens import actors, broker, outside, rotation, sweeping
from tokens.clouds import Audience
from tokens.http import HostRefused
from tokens.models import Alarm, RefreshToken, SecretVersion, TokenUse

pytestmark = pytest.mark.django_db(transaction=True)
WOODGROVE, TAILSPIN = "300d6700-0000-4000-8000-0000000000a0", "7a115910-0000-4000-8000-0000000000b0"
OURS: Pair = pair("cpv", days=300)


@dataclass(frozen=True)
class Ours:
    """What we are in one cloud, and where that cloud is; written down here, not taken from the product's table."""

    cloud: str
    suffix: str
    vendor: str
    app_id: str
    vault_id: str
    vault: str
    hosts: frozenset[str]


USGOV = Ours(
    "usgov", "_USGOV", "90c00000-0000-4000-8000-000000000001", "90c00000-0000-4000-8000-0000000000a1",
    "90c00000-0000-4000-8000-0000000000b1", "cpv-gov.vault.usgovcloudapi.net",
    frozenset({
        "login.microsoftonline.us", "graph.microsoft.us", "api.partnercenter.microsoft.com",
        "cpv-gov.vault.usgovcloudapi.net",
    }),
)  # fmt: skip
CHINA = Ours(
    "china", "_CHINA", "c1a00000-0000-4000-8000-000000000001", "c1a00000-0000-4000-8000-0000000000a1",
    "c1a00000-0000-4000-8000-0000000000b1", "cpv-cn.vault.azure.cn",
    frozenset({
        "login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn", "cpv-cn.vault.azure.cn",
        "partner.partnercenterapi.microsoftonline.cn",
    }),
)  # fmt: skip
GLOBAL_HOSTS = {
    "login.microsoftonline.com", "graph.microsoft.com", "api.partnercenter.microsoft.com", "cpv-demo.vault.azure.net",
}  # fmt: skip
BOTH = pytest.mark.parametrize("ours", [USGOV, CHINA], ids=["usgov", "china"])


def set_up(ours: Ours, world: Any, settings: Any, **proof: str) -> None:
    """Our registration, vault identity and settings in one more cloud; nothing of it is known in another."""
    proof = proof or {"secret": f"secret of {ours.cloud}"}
    world.add_tenant(ours.vendor, "Panel Vendor", cloud=ours.cloud)
    app = world.app_registration(ours.app_id, tenant_id=ours.vendor, clouds=[ours.cloud], secret=proof.get("secret"))
    app.certificates = read_certificates([OURS.certificate])
    vault = world.vault_identity(ours.vault_id, secret="vault-secret", tenant_id=ours.vendor)
    vault.clouds = frozenset({ours.cloud})
    world.vault(ours.vault, tenant_id=ours.vendor)
    world.apps[demo.APP_ID].clouds = frozenset({"global"})
    empty_app, empty_vault = settings.CPV_APPS[ours.cloud], settings.CPV_VAULTS[ours.cloud]
    mine = {"tenant_id": ours.vendor, "app_id": ours.app_id} | proof
    settings.CPV_APPS = {**settings.CPV_APPS, ours.cloud: empty_app | mine}
    there = {"url": f"https://{ours.vault}", "tenant_id": ours.vendor, "client_id": ours.vault_id}
    settings.CPV_VAULTS = {**settings.CPV_VAULTS, ours.cloud: empty_vault | there | {"secret": "vault-secret"}}
    outside.forget()


def connect(ours: Ours, world: Any, capsys: Any, tenant_id: str = WOODGROVE) -> Person:
    """A partner of that cloud comes by invitation."""
    tenant = world.add_tenant(tenant_id, "Woodgrove", cloud=ours.cloud, customers=3)
    tenant.add_account("svc@woodgrove.test", groups={"AdminAgents"})
    capsys.readouterr()
    call_command("invite", "--name", "Woodgrove", "--tenant", tenant_id, "--cloud", ours.cloud, "--json")
    url = json.loads(capsys.readouterr().out)["url"]
    visitor = Person(Client(), world)
    answer = visitor.connect(url, "svc@woodgrove.test")
    assert answer.status_code == 200, text_of(answer)
    return visitor


def token_of(tenant: str) -> RefreshToken:
    return RefreshToken.objects.current().select_related("partner").get(partner__tenant_id=tenant)


def work(tenant: str) -> None:
    """A sync, a rotation, and an API of each audience that the cloud has and we ask for."""
    broker.forget()
    job = Job.objects.get(partner__tenant_id=tenant)
    Job.objects.filter(pk=job.pk).update(next_run_at=timezone.now(), claimed_until=None)
    run = jobs.run_job(job.pk)
    assert run
    assert run.outcome == "done", run.error
    RefreshToken.objects.filter(partner=job.partner).update(next_refresh_at=timezone.now() - dt.timedelta(seconds=1))
    (claimed,) = rotation.claim_due()
    assert rotation.rotate(claimed)
    for audience, path in ((Audience.PARTNER_CENTER, "/v1/profiles/organization"), (Audience.GRAPH, "/v1.0/me")):
        opened = broker.session(token_of(tenant), audience, purpose="token.explain", actor=actors.command("test"))
        assert opened.get(path).status_code == 200


def hosts(calls: list[Any]) -> set[str]:
    """Where our own requests went; the browser's, at the stand-in's address, are left out."""
    return {call.host for call in calls if call.service != "public"}


# --- A partner's whole life -------------------------------------------------------------------------------------------
@BOTH
def test_consent_sync_rotation_and_the_end_stay_in_the_partners_cloud(world, settings, capsys, ours):
    set_up(ours, world, settings, certificate=OURS.key + OURS.certificate)

    connect(ours, world, capsys)
    work(WOODGROVE)
    partner = Partner.objects.get()
    lifecycle.kill(partner=partner, by=actors.command("test"), reason="the end")
    sweeping.close_stopped()

    assert hosts(world.calls) == ours.hosts
    assert {call.client for call in world.calls if call.path.endswith("/token")} == {ours.app_id, ours.vault_id}
    assert partner.cloud == ours.cloud
    assert Customer.objects.count() == 3
    assert len(world.vault(ours.vault).secrets) == 1
    assert not world.vault("cpv-demo.vault.azure.net").secrets
    assert SecretVersion.objects.filter(disabled_at=None).count() == 0, "the vault of that cloud took the ends too"


def test_partners_of_three_clouds_side_by_side_never_meet(world, settings, capsys, member):
    set_up(USGOV, world, settings)
    set_up(CHINA, world, settings)
    connect(USGOV, world, capsys)
    connect(CHINA, world, capsys, TAILSPIN)

    seen = len(world.calls)
    for tenant in (CONTOSO, WOODGROVE, TAILSPIN, CONTOSO):
        work(tenant)

    homes = {WOODGROVE: USGOV.hosts, TAILSPIN: CHINA.hosts, CONTOSO: GLOBAL_HOSTS}
    apps = {WOODGROVE: USGOV.app_id, TAILSPIN: CHINA.app_id, CONTOSO: demo.APP_ID}
    for tenant, home in homes.items():
        of_tenant = [call for call in world.calls if call.tenant == tenant and call.service != "public"]
        assert hosts(of_tenant) == {host for host in home if ".vault." not in host}
        requests = [call.client for call in of_tenant if call.path.endswith("/token")]
        assert set(requests) == {apps[tenant]}
        assert TokenUse.objects.filter(partner__tenant_id=tenant).count() == len(requests)
    assert hosts(world.calls[seen:]) == USGOV.hosts | CHINA.hosts | GLOBAL_HOSTS


def test_a_member_signs_in_at_the_partners_cloud(world, settings, capsys):
    ours = CHINA
    set_up(ours, world, settings)
    visitor = connect(ours, world, capsys)
    visitor.portal.post("/signout")
    seen = len(world.calls)

    at_microsoft = visitor.at_microsoft(visitor.leave("/signin", cloud=ours.cloud), "svc@woodgrove.test")
    answer = visitor.come_back(at_microsoft)

    assert answer.status_code == 200
    assert "Woodgrove" in text_of(answer)
    assert hosts(world.calls[seen:]) <= {host for host in ours.hosts if host.startswith("login.")}


@BOTH
def test_the_drill_asks_in_each_cloud_as_what_we_are_there(world, settings, capsys, ours):
    set_up(ours, world, settings, certificate=OURS.key + OURS.certificate)

    call_command("rotatecredential", "--json")

    documents = {document["cloud"]: document for document in json.loads(capsys.readouterr().out)}
    assert set(documents) == {"global", ours.cloud}
    (row,) = documents[ours.cloud]["credentials"]
    assert (row["setting"], row["result"]) == (f"CPV_APP_CERTIFICATE{ours.suffix}", "accepted")
    assert {call.host for call in world.calls if call.client == ours.app_id} < ours.hosts


def test_a_cloud_rolls_over_by_itself(world, settings, capsys, member):
    old = pair("old", days=300)
    both = {"certificate": old.key + old.certificate, "next_certificate": OURS.key + OURS.certificate}
    set_up(CHINA, world, settings, **both)

    connect(CHINA, world, capsys)

    assert outside.entra("china").credential.proof.kind == "next"
    assert outside.entra("global").credential.proof.kind == "secret"
    assert [(alarm.kind, alarm.cloud) for alarm in Alarm.objects.all()] == [("rolled_over", "china")]


# --- The doors --------------------------------------------------------------------------------------------------------
@BOTH
def test_the_door_of_a_cloud_refuses_hosts_of_all_others(world, settings, capsys, ours):
    set_up(ours, world, settings)
    connect(ours, world, capsys)
    seen = len(world.calls)
    opened = broker.session(token_of(WOODGROVE), Audience.GRAPH, purpose="token.explain", actor=actors.command("test"))

    for host in (GLOBAL_HOSTS | USGOV.hosts | CHINA.hosts) - ours.hosts:
        with pytest.raises(HostRefused):
            outside.network(ours.cloud).request("GET", f"https://{host}/v1.0/me")
        with pytest.raises(HostRefused):
            opened.get(f"https://{host}/v1.0/me")

    assert len(world.calls) == seen


@BOTH
def test_a_vault_of_another_cloud_gets_nothing(world, settings, capsys, ours):
    set_up(ours, world, settings)
    wrong = settings.CPV_VAULTS[ours.cloud] | {"url": "https://cpv-elsewhere.vault.azure.net"}
    settings.CPV_VAULTS = {**settings.CPV_VAULTS, ours.cloud: wrong}
    outside.forget()

    with pytest.raises(HostRefused):
        outside.vault(ours.cloud).put("rt-1", "sealed", tags={})

    assert world.calls == []


# --- The invitation -------------------------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize(
    ("part", "lacking"),
    [
        ("tenant_id", "CPV_TENANT_ID"),
        ("app_id", "CPV_APP_ID"),
        ("secret", "CPV_APP_CERTIFICATE"),
        ("url", "KEY_VAULT_URL"),
    ],
)
def test_a_cloud_that_lacks_one_setting_is_refused_at_the_invitation(world, settings, ours, part, lacking):
    set_up(ours, world, settings)
    table = settings.CPV_VAULTS if part == "url" else settings.CPV_APPS
    setattr(
        settings,
        "CPV_VAULTS" if part == "url" else "CPV_APPS",
        {**table, ours.cloud: table[ours.cloud] | {part: ""}},
    )

    with pytest.raises(CommandError, match=f"set {lacking}{ours.suffix} first") as ended:
        call_command("invite", "--name", "Woodgrove", "--tenant", WOODGROVE, "--cloud", ours.cloud)

    assert ended.value.returncode == 2
    assert not Partner.objects.exists()


def test_an_invitation_for_the_wrong_cloud_says_so_and_who_acts(world, settings, invited, person):
    """The tenant exists, in another cloud than the invitation's; nothing was stored, and nobody else is disturbed."""
    world.add_tenant(CONTOSO, "Contoso", cloud="china").add_account(SERVICE, groups={"AdminAgents"})

    answer = person.portal.post(f"/connect/{invited[1].rsplit('/', 1)[-1]}")

    words = text_of(answer)
    assert REASONS["another_cloud"].title in words
    assert "Us, the vendor" in words
    assert "AADSTS90038" in words
    assert not RefreshToken.objects.exists()
    assert Invitation.objects.get().used_at is None
