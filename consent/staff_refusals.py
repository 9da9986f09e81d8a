"""What a refused sign-in at Microsoft says to one of the vendor's staff, at the desk."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from consent.refusal_words import NOBODY, Reason
from consent.refusals import Refused
from partners.desk_roles import APP_ROLES

ADMINISTRATOR = "An administrator of the vendor's Entra tenant"
OPERATOR = "Whoever runs this panel"
DESK_ADMIN = "An admin of this desk"
NOT_ASSIGNED = "AADSTS50105"  # Entra itself turns away who has no app role, where assignment is required
AGAIN = "Sign in again."
ASSIGN = (
    "In the Microsoft Entra admin centre, under Enterprise applications, this application ({app}), Users and groups: "
    "assign exactly one of {roles} to this person."
)
CONTEXT = (
    "In the Microsoft Entra admin centre, under Conditional Access, publish an authentication context, and switch on a "
    "policy that targets it and requires MFA of the staff."
)

REASONS = {
    "no_desk_role": Reason(
        "You have no role at this desk",
        "Microsoft knows you, but gave you no app role of the desk. Whatever role you had here before is over.",
        (ASSIGN, AGAIN),
        owner=ADMINISTRATOR,
    ),
    "not_assigned": Reason(
        "You have no role at this desk",
        "Microsoft let you come no further: it gave you no app role of the desk. Where you are signed in here already, "
        "that lasts until its end; an admin of this desk ends it at once.",
        (ASSIGN, AGAIN),
        owner=ADMINISTRATOR,
    ),
    "several_desk_roles": Reason(
        "You have more than one role at this desk",
        "One person has one role here, and Microsoft names several of yours. None of them counts.",
        (ASSIGN, AGAIN),
        owner=ADMINISTRATOR,
    ),
    "mfa_unknown": Reason(
        "Microsoft does not tell us that you used MFA",
        "The desk lets nobody in without multi-factor authentication that we can see, and what Microsoft sent does not "
        "say how you signed in. An authentication context does.",
        (CONTEXT, "Set CPV_STAFF_CONTEXT to its id, such as c1, and start the portal anew.", AGAIN),
        owner=f"{OPERATOR}, with an administrator of the vendor's Entra tenant",
    ),
    "no_context": Reason(
        "Your sign-in did not meet the authentication context {context}",
        "The desk lets somebody in when Microsoft confirms that the policy behind the authentication context {context} "
        "was met, and it did not.",
        (CONTEXT.replace("an authentication context", "the authentication context {context}"), AGAIN),
        owner=ADMINISTRATOR,
    ),
    "no_mfa_at_sign_in": Reason(
        "Your sign-in did not carry MFA",
        "The desk lets nobody in who signed in without multi-factor authentication, and Microsoft says that you did.",
        (CONTEXT, "Sign out at Microsoft, or use a private window, and sign in again with MFA."),
        owner=ADMINISTRATOR,
    ),
    "wrong_tenant": Reason(
        "That account belongs to another organisation",
        "Only people of the vendor's own tenant come to this desk.",
        ("Sign in again with your account in the vendor's tenant.",),
    ),
    "guest": Reason(
        "That account is a guest",
        "A guest's sign-in is governed by another organisation, so it opens nothing here, whatever role it has.",
        ("Sign in again with an account that is a member of the vendor's tenant.",),
    ),
    "personal": Reason(
        "That is a personal Microsoft account",
        "Staff sign in with their work account.",
        ("Sign in again with your account in the vendor's tenant.",),
    ),
    "member_at_the_desk": Reason(
        "That account is a partner's member",
        "Staff and members are different people: who sees a partner's customers as its member is not let in here.",
        ("Sign in again with another account.", "Or let an owner of that partner take you out of its team first."),
    ),
    "deactivated_at_the_desk": Reason(
        "You have no place at this desk any more",
        "Somebody ended it here, and what Microsoft says does not bring it back.",
        ("If that was a mistake, an admin of this desk lets you in again, on your page under Users.",),
        owner=DESK_ADMIN,
    ),
    "another_person": Reason(
        "That is another account",
        "To go on, whoever is signed in here has to prove it at Microsoft. You came back as somebody else, so nothing "
        "was done, and you are still signed in as before.",
        ("Go back, and sign in at Microsoft with the very account you use here.",),
    ),
    "not_anew": Reason(
        "Microsoft did not ask you again",
        "It answered from an earlier sign-in, or did not say when you signed in, and that is no proof that it is you.",
        (
            "Confirm again, and enter your password and MFA at Microsoft.",
            "If that is what you did: an administrator adds the optional claim auth_time to the id_token, under App "
            "registrations, this application ({app}), Token configuration.",
        ),
    ),
    "declined": Reason("You cancelled at Microsoft", "That is fine; nothing changed.", (AGAIN,)),
    "admin_approval": Reason(
        "An administrator has to approve first",
        "The vendor's tenant does not let its people sign in to this application by themselves.",
        (
            "In the Microsoft Entra admin centre, under Enterprise applications, this application ({app}), "
            "Permissions: grant consent for the organisation.",
            AGAIN,
        ),
        owner=ADMINISTRATOR,
    ),
    "blocked": Reason(
        "A sign-in policy blocks this",
        "A conditional access policy of the vendor's tenant, or a setting of the account, refused the sign-in.",
        ("Look at the tenant's sign-in log under the reference below.", AGAIN),
        owner=ADMINISTRATOR,
    ),
    "unverified": Reason(
        "We could not verify Microsoft's answer",
        "The proof of who signed in did not pass our checks, so we threw it away.",
        (AGAIN, "If it happens twice, tell whoever runs this panel the reference below."),
        owner=OPERATOR,
        status=400,
    ),
    "unknown_attempt": Reason(
        "We do not know this attempt",
        "The way back from Microsoft does not belong to a sign-in that began here.",
        (AGAIN,),
        status=400,
    ),
    "unfit_answer": Reason(
        "Microsoft's answer did not come the way we asked for",
        "We ask Microsoft for its answer in one form only, and take no other.",
        (AGAIN,),
        status=400,
    ),
    "answer_gone": Reason(
        "Microsoft's answer is no longer here",
        "We keep it for one minute and hand it out once; the page was loaded again, or came too late.",
        (AGAIN,),
        status=400,
    ),
    "replayed": Reason(
        "This attempt was already used", "Each attempt counts once; the page was loaded again.", (AGAIN,), status=400
    ),
    "other_browser": Reason(
        "This attempt began in another browser, or another session",
        "A sign-in has to end where it began, so that nobody can be led through somebody else's.",
        (AGAIN,),
        status=400,
    ),
    "too_late": Reason(
        "That took longer than ten minutes", "An attempt is good for ten minutes.", (AGAIN,), status=400
    ),
    "microsoft_down": Reason(
        "Microsoft does not answer right now",
        "We could not finish the sign-in.",
        ("Wait a few minutes, and sign in again.", "Local accounts, and the one for emergencies, need no Microsoft."),
        owner=NOBODY,
        status=503,
    ),
    "our_fault": Reason(
        "Something is wrong on our side",
        "Microsoft refused our application, not you.",
        ("Tell whoever runs this panel the reference below: docs/errors.md says what to repair.",),
        owner=OPERATOR,
        status=502,
    ),
    "microsoft_refused": Reason(
        "Microsoft refused the sign-in",
        "Microsoft ended the sign-in with an error.",
        (AGAIN, "If it happens twice, tell whoever runs this panel the reference below."),
    ),
}
"""What can happen on this way, in its words; everything else is `microsoft_refused` with its reference."""
SAME = {"no_mfa": "no_mfa_at_sign_in", "missing_scope": "admin_approval"} | dict.fromkeys(
    ("unknown_tenant", "another_cloud"), "our_fault"
)


@dataclass(frozen=True)
class Words:
    """A refusal as the desk's page shows it."""

    title: str
    why: str
    steps: list[str]
    owner: str
    reference: str
    status: int


def words_of(refused: Refused) -> Words:
    name = "not_assigned" if refused.reference == NOT_ASSIGNED else SAME.get(refused.reason, refused.reason)
    reason = REASONS.get(name, REASONS["microsoft_refused"])
    return Words(
        title=_filled(reason.title),
        why=_filled(reason.why),
        steps=[_filled(step) for step in reason.steps],
        owner=reason.owner,
        reference=refused.reference,
        status=reason.status,
    )


def _filled(words: str) -> str:
    known = {
        "{app}": settings.CPV_APPS[settings.CPV_STAFF_CLOUD]["app_id"],
        "{roles}": ", ".join(APP_ROLES),
        "{context}": settings.CPV_STAFF_CONTEXT,
    }
    for name, value in known.items():
        words = words.replace(name, value)
    return words
