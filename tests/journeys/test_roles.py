"""Whose consent counts: the role of the account against what the vendor accepts."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import call_command

from consent.models import Consent
from consent.refusal_words import REASONS
from tests.pretend import text_of
from tokens.models import RefreshToken

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = {
    "admin": {"groups": {"AdminAgents"}},
    "sales": {"groups": {"SalesAgents"}},
    "helpdesk": {"groups": {"HelpdeskAgents"}},
    "none": {},
    "global administrator": {"admin": True},
}
ADMIN, BOTH, SALES = ["admin_agent"], ["admin_agent", "sales_agent"], ["sales_agent"]
REFUSED, ACCEPTED, LIMITED = "refused", "active", "limited"
MATRIX = [
    # who           ADMIN     BOTH      SALES
    ("admin", ACCEPTED, ACCEPTED, REFUSED),
    ("sales", REFUSED, LIMITED, LIMITED),
    ("helpdesk", REFUSED, REFUSED, REFUSED),
    ("none", REFUSED, REFUSED, REFUSED),
    ("global administrator", REFUSED, REFUSED, REFUSED),
]
CASES = [
    pytest.param(who, policy, end, id=f"{who}-{'+'.join(policy)}")
    for who, *ends in MATRIX
    for policy, end in zip((ADMIN, BOTH, SALES), ends, strict=True)
]
WORDS = {"admin_agent": "Admin agent", "sales_agent": "Sales agent"}


@pytest.mark.parametrize(("who", "policy", "end"), CASES)
def test_role_against_policy(person, invited, contoso, settings, who, policy, end):
    settings.CPV_CONSENT_ROLES = policy
    contoso.add_account("somebody@contoso.test", **PEOPLE[who])

    answer = person.connect(invited[1], "somebody@contoso.test")

    words = text_of(answer)
    assert listed()["state"] == ("invited" if end == REFUSED else end)
    if end == REFUSED:
        assert answer.status_code == 403
        assert REASONS["no_role"].title in words
        assert f"We accept: {' or '.join(WORDS[role] for role in policy)}." in words
        assert not RefreshToken.objects.exists()
        assert not any(call.service == "vault" for call in person.world.calls)
    else:
        assert answer.request["PATH_INFO"] == "/connect/connected"
        assert Consent.objects.get().role == f"{who}_agent"
        assert RefreshToken.objects.get().limits == ("Sales agent only" if end == LIMITED else "")


@pytest.mark.parametrize(
    ("policy", "owner", "action", "offers"),
    [
        (BOTH, "partner", "Reconnect with an account that is an admin agent.", True),
        (SALES, "nobody", "Nothing to do: the vendor asks for this role.", False),
    ],
    ids=["with admin agents", "sales agents only"],
)
def test_limits_are_kept_and_shown_everywhere(
    person, invited, contoso, settings, support, policy, owner, action, offers
):
    settings.CPV_CONSENT_ROLES = policy
    contoso.add_account("sales@contoso.test", groups={"SalesAgents"})
    reason = "The account that agreed has a lesser role: Sales agent only."

    connected = text_of(person.connect(invited[1], "sales@contoso.test"))
    home = person.portal.get("/")
    desk = text_of(support.get(f"/admin/partners/partner/{invited[0].pk}/change/"))

    for words in (connected, text_of(home), desk):
        assert "Connected with limits" in words
        assert reason in words
    assert ("Reconnect with Microsoft" in text_of(home)) is offers
    row = listed()
    assert (row["state"], row["reason"], row["role"]) == ("limited", reason, "sales_agent")
    assert (row["owner"], row["action"]) == (owner, action)


def test_an_admin_agent_may_take_the_place_of_a_lesser_role(person, invited, contoso, settings):
    settings.CPV_CONSENT_ROLES = BOTH
    contoso.add_account("sales@contoso.test", groups={"SalesAgents"})
    person.connect(invited[1], "sales@contoso.test")

    shown = person.connect("/connection/renew", "svc-cpv@contoso.test")

    assert "Role changes Sales agent Admin agent" in text_of(shown)
    assert listed()["state"] == "limited", "until an owner has said yes"
    person.portal.post("/connection/renewal", {"answer": "yes"})
    assert listed()["state"] == "active"


def listed() -> dict:
    out = io.StringIO()
    call_command("partners", json=True, stdout=out)
    [row] = json.loads(out.getvalue())
    return row
