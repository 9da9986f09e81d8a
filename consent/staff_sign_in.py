"""
Sign-in of the vendor's staff by its own Entra tenant: who they are and in which role says the id_token alone.

Any tenant may give its people app roles of our application. They count from the vendor's own, and from nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.utils import timezone

from consent import attempts, mfa_at_sign_in
from consent.attempts import VISITOR
from consent.models import ConsentAttempt
from consent.refusals import WAY_ON, Refused
from partners import borrowed, two_people
from partners.desk_roles import APP_ROLES
from partners.models import User
from partners.presence import FRESH
from tokens import audit, broker
from tokens.actors import Actor, ActorKind
from tokens.entra import Identity
from tokens.errors import Failure

logger = logging.getLogger(__name__)

KIND = ConsentAttempt.Kind.STAFF
RETRY = WAY_ON[KIND]


@dataclass(frozen=True)
class Proven:
    """
    One of the staff who came, or, with `again`, proved once more who they are.

    `proved_at` is when they proved themselves (seconds since 1970), where Microsoft said so.
    """

    user: User
    next_path: str
    mfa: dict[str, Any]
    proved_at: int | None
    again: bool


def vendors_tenant() -> str:
    return str(settings.CPV_APPS[settings.CPV_STAFF_CLOUD]["tenant_id"]).lower()


def begin(*, browser: str, next_path: str = "", again: User | None = None) -> str:
    """
    Start a sign-in with `openid profile` in the vendor's own tenant; returns the address at Microsoft.

    `again` is somebody at the desk who has to prove it anew: Microsoft asks them whatever it remembers.
    :raises Refused: Microsoft cannot be reached
    """
    cloud = settings.CPV_STAFF_CLOUD
    flow = attempts.flow_to_microsoft(
        cloud,
        tenant=vendors_tenant(),
        scopes=[],
        kind=KIND,
        retry_path=RETRY,
        hint=again.upn if again else "",
        offline_access=False,
        claims=mfa_at_sign_in.claims(settings.CPV_STAFF_CONTEXT),
        prompt="login" if again else "select_account",
        max_age=FRESH,  # so that it says when, and coming in is a proof for what is grave
    )
    flow["again"] = again.pk if again else None
    return attempts.remember(flow, KIND, cloud, browser, next_path=next_path)


def complete(*, answer: Mapping[str, str], browser: str) -> Proven:
    """
    End a sign-in: somebody of the vendor's tenant, with MFA that we can see and exactly one role at the desk.

    Their role here is from now on the one Entra has for them; without one they have none here either.
    :raises Refused: with the reason for the visitor
    """
    attempt, flow = attempts.claimed(KIND, answer, browser)
    identity = None
    try:
        attempts.check_answer(answer, attempt.cloud)
        grant = broker.redeem_sign_in(
            cloud=attempt.cloud, tenant=flow["tenant"], flow=flow, answer=dict(answer), actor=VISITOR
        )
        identity = attempts.proven_identity(attempt.cloud, grant.id_token, flow)
        proven = _proven(attempt, flow, identity)
    except (Refused, Failure) as error:
        refused = attempts.as_refusal(error, RETRY)
        attempt.close(refused.reason)
        _write_down(refused.reason, identity)
        logger.warning(
            "sign-in of staff refused",
            extra={"reason": refused.reason, "reference": refused.reference, "attempt": attempt.pk},
        )
        raise refused from (None if refused is error else error)
    attempt.close("proved again" if proven.again else "signed in")
    return proven


def _proven(attempt: ConsentAttempt, flow: dict[str, Any], identity: Identity) -> Proven:
    if str(identity.tenant_id) != vendors_tenant():
        raise Refused("wrong_tenant")
    if flow["again"]:
        _check_same(flow["again"], identity)
        attempts.check_lately(identity, since=attempt.created_at)
    evidence = mfa_at_sign_in.in_id_token(identity, settings.CPV_STAFF_CONTEXT)
    if evidence is None:
        raise Refused("mfa_unknown")
    user = _of_the_staff(identity)
    mfa = evidence | {"at": timezone.now().isoformat()}
    if flow["again"]:
        audit.record("staff.confirmed", actor=user.as_actor(), object=user.username, factor="entra", mfa=mfa)
    return Proven(user, attempt.next_path, mfa, identity.authenticated_at, bool(flow["again"]))


def _write_down(reason: str, identity: Identity | None) -> None:
    """A refusal in the audit; with who it was, where Microsoft said so in a way that counts."""
    if identity is None:
        audit.record("staff.refused", actor=VISITOR, reason=reason)
        return
    who = Actor(ActorKind.VISITOR, id=str(identity.object_id), label=identity.username)
    audit.record("staff.refused", actor=who, object=_name_of(identity), reason=reason)


def _check_same(pk: int, identity: Identity) -> None:
    if not User.objects.filter(pk=pk, **_who(identity)).exists():
        raise Refused("another_person")


# --- Who it is here -------------------------------------------------------------------------------------------------
def _who(identity: Identity) -> dict[str, Any]:
    return {"cloud": identity.cloud, "tid": identity.tenant_id, "oid": identity.object_id}


def _name_of(identity: Identity) -> str:
    return f"{identity.cloud}:{identity.tenant_id}:{identity.object_id}"


def _of_the_staff(identity: Identity) -> User:
    """
    This person as one of the staff, in the one role that Entra has for them.

    :raises Refused: none or several, and then whatever role they had here is over; or no place here for another reason
    """
    given = sorted(APP_ROLES[name] for name in identity.roles & set(APP_ROLES))
    user = _let_follow(identity, given[0] if len(given) == 1 else "")
    if user is None or len(given) != 1:
        raise Refused("several_desk_roles" if given else "no_desk_role")
    return user


@transaction.atomic
def _let_follow(identity: Identity, role: str) -> User | None:
    """
    Give somebody the role that Entra has for them, "" for none; who is new here begins with a role, or not at all.

    Never somebody with a local account, whatever their name or address: only (cloud, tid, oid) says who it is.
    :raises Refused: somebody whose access was ended here, or a partner's member; nothing is changed
    """
    known = User.objects.select_for_update().filter(**_who(identity))
    if not role and not known.filter(is_staff=True).exists():
        return None
    user, is_new = known.get_or_create(
        **_who(identity),
        defaults={"username": _name_of(identity), "password": make_password(None), "is_staff": True},
    )
    if user.memberships.exists():
        raise Refused("member_at_the_desk")
    if not user.is_open:
        raise Refused("deactivated_at_the_desk")
    is_new, earlier = is_new or not user.is_staff, user.staff_role
    user.is_staff, user.staff_role, user.upn, user.name = True, role, identity.username, identity.name
    user.save(update_fields=["is_staff", "staff_role", "upn", "name"])
    if earlier != role:
        borrowed.end_those_with(person=user, by=user.as_actor(), became="got another role")
        two_people.note(user, by=user.as_actor())
        action = "staff.appointed" if is_new else "staff.role_changed"
        audit.record(
            action, actor=user.as_actor(), object=user.username, role=role, earlier=earlier,
            reason="app role in Microsoft Entra",
        )  # fmt: skip
    return user
