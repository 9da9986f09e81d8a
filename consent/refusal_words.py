"""What each refusal of a consent or a sign-in says to the person in front of it: what is wrong, who acts, what next."""

from __future__ import annotations

from dataclasses import dataclass

PARTNER_CENTER_APP = "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"

YOU = "You"
ADMINISTRATOR = "Your administrator"
VENDOR = "Us, the vendor"
INVITER = "Whoever invited you"
NOBODY = "Nobody: it passes"


@dataclass(frozen=True)
class Reason:
    """The words of one refusal; `status` is the HTTP status of its page."""

    title: str
    why: str
    steps: tuple[str, ...]
    owner: str = YOU
    status: int = 403
    command: str = ""


REASONS = {
    "wrong_tenant": Reason(
        "That account belongs to another organisation",
        "This invitation is for one tenant, and the account you chose lives in a different one.",
        (
            "Open the invitation again.",
            "Choose “Use another account” and sign in with the invited organisation's account.",
        ),
    ),
    "personal": Reason(
        "That is a personal Microsoft account",
        "Only a work account of the invited organisation can connect it.",
        ("Open the invitation again.", "Sign in with the organisation's service account."),
    ),
    "guest": Reason(
        "That account is a guest",
        "A guest's sign-in is governed by another organisation, so it cannot speak for this one.",
        ("Open the invitation again.", "Sign in with an account that is a member of the tenant."),
    ),
    "no_mfa": Reason(
        "Your sign-in did not carry MFA",
        "Partner Center takes no call from a sign-in without multi-factor authentication, so the connection would not "
        "work. Usual causes: a trusted-location exception, MFA of another vendor, or a remembered device.",
        (
            "Make sure that MFA is required for the service account, with no exception for this location.",
            "Sign out at Microsoft, or use a private window.",
            "Open the invitation again and complete MFA.",
        ),
    ),
    "no_role": Reason(
        "That account does not have the role this needs",
        "Partner Center allows what this connection needs only to certain roles. We accept: {roles}. "
        "A Global Administrator has none of them by that alone.",
        (
            "In Partner Center, under Settings and then User management, give the service account that role.",
            "Wait a few minutes, then open the invitation again.",
        ),
        owner=ADMINISTRATOR,
    ),
    "declined": Reason(
        "You declined at Microsoft",
        "Microsoft told us that the permissions were not accepted. That is fine; nothing changed.",
        ("To connect after all, open the invitation again and choose Accept.",),
    ),
    "admin_approval": Reason(
        "An administrator has to approve first",
        "Your tenant does not let this account accept the permissions by itself.",
        (
            "Ask a Global Administrator of your tenant to approve the application.",
            "Then open the invitation again and sign in with the service account.",
        ),
        owner=ADMINISTRATOR,
    ),
    "approved_elsewhere": Reason(
        "Another organisation was approved",
        "Microsoft names another tenant than the invited one, so the approval does not help here.",
        ("Open the invitation again.", "Let a Global Administrator of the invited tenant approve."),
        owner=ADMINISTRATOR,
    ),
    "no_service_principal": Reason(
        "Partner Center is not set up in your tenant yet",
        "Microsoft Partner Center has no service principal in your tenant, so no permission for it can be granted.",
        (
            "Let an administrator run the command below once, in Azure Cloud Shell or PowerShell.",
            "Wait a minute, then open the invitation again.",
        ),
        owner=ADMINISTRATOR,
        command=f"New-MgServicePrincipal -AppId {PARTNER_CENTER_APP}",
    ),
    "missing_scope": Reason(
        "A permission is missing",
        "Microsoft granted less than was asked for, so parts of the connection would not work.",
        ("Open the invitation again and accept all the permissions shown.",),
    ),
    "blocked": Reason(
        "A sign-in policy of your tenant blocks this",
        "A conditional access policy, or a setting of the account, refused the sign-in from our servers.",
        (
            "Let an administrator look at the sign-in log under the reference below.",
            "Exempt the service account from that policy, then open the invitation again.",
        ),
        owner=ADMINISTRATOR,
    ),
    "unverified": Reason(
        "We could not verify Microsoft's answer",
        "The proof of who signed in did not pass our checks, so we threw it away.",
        ("Open the invitation again.", "If it happens twice, tell our support the reference below."),
        owner=VENDOR,
        status=400,
    ),
    "unknown_attempt": Reason(
        "We do not know this attempt",
        "The way back from Microsoft does not belong to an attempt that began here.",
        ("Open the invitation again and start from there.",),
        status=400,
    ),
    "unfit_answer": Reason(
        "Microsoft's answer did not come the way we asked for",
        "We ask Microsoft for its answer in one form only, and take no other.",
        ("Open the invitation again and start from there.",),
        status=400,
    ),
    "answer_gone": Reason(
        "Microsoft's answer is no longer here",
        "We keep it for one minute and hand it out once; the page was reloaded, or came too late.",
        ("If you saw that you are connected, go to your home page.", "Otherwise open the invitation again."),
        status=400,
    ),
    "replayed": Reason(
        "This attempt was already used",
        "Each attempt counts once; the page was reloaded or opened again.",
        ("If you saw that you are connected, go to your home page.", "Otherwise open the invitation again."),
        status=400,
    ),
    "other_browser": Reason(
        "This attempt began in another browser",
        "An attempt has to end in the browser it began in, so that nobody can be led through somebody else's.",
        ("Open the invitation in this browser and start from there.",),
        status=400,
    ),
    "too_late": Reason(
        "That took longer than ten minutes",
        "An attempt is good for ten minutes.",
        ("Open the invitation again.",),
        status=400,
    ),
    "unknown_invitation": Reason(
        "This invitation does not exist",
        "The link is incomplete, or it was never one of ours.",
        ("Copy the whole link from the mail.", "If it still fails, ask us for a new invitation."),
        status=404,
    ),
    "expired_invitation": Reason(
        "This invitation has expired",
        "An invitation is good for seven days.",
        ("Ask us for a new invitation.",),
        owner=VENDOR,
        status=410,
    ),
    "used_invitation": Reason(
        "This invitation has been used",
        "It connected its organisation already and cannot be used again.",
        ("If you are a member, sign in to the portal.", "Otherwise ask us for a new invitation."),
        status=410,
    ),
    "unknown_team_invitation": Reason(
        "This invitation does not exist",
        "The link is incomplete, or it was never one of ours.",
        ("Copy the whole link from the mail.", "If it still fails, ask whoever invited you for a new one."),
        status=404,
    ),
    "ended_team_invitation": Reason(
        "This invitation is no longer good",
        "An invitation is good for seven days, for one person, and until an owner takes it back.",
        (
            "If you are a member already, sign in to the portal.",
            "Otherwise ask whoever invited you for a new invitation.",
        ),
        owner=INVITER,
        status=410,
    ),
    "not_of_the_team": Reason(
        "That account belongs to another organisation",
        "This invitation is for people of one organisation, and the account you chose lives in a different one.",
        (
            "Open the invitation again.",
            "Choose “Use another account” and sign in with your account in that organisation.",
            "If you have none there, ask whoever invited you to invite somebody of another organisation.",
        ),
    ),
    "already_a_member": Reason(
        "You are a member already",
        "This invitation is for somebody who is not yet a member. It stays good for them, and nothing changed for you.",
        ("Sign in to the portal.",),
        status=409,
    ),
    "already_connected": Reason(
        "Already connected",
        "Another attempt was faster: the organisation is connected, and this one was thrown away.",
        ("Go to your home page.",),
        owner="Nobody: all is well",
        status=409,
    ),
    "stopped": Reason(
        "This organisation is stopped here",
        "The vendor has stopped all work for it, so it cannot connect now.",
        ("Talk to our support.",),
        owner=VENDOR,
    ),
    "not_a_member": Reason(
        "You have no access here",
        "Microsoft knows you, but no organisation in this portal lists you as a member.",
        (
            "If you have an invitation, open its link: that is how an organisation connects.",
            "If your organisation is connected, ask an owner to add you.",
        ),
    ),
    "one_of_the_staff": Reason(
        "That is an account of the vendor's staff",
        "Whoever works at the vendor's desk is a member of no organisation here, and connects none.",
        ("Sign in again with an account that is not used at the desk.",),
    ),
    "guest_at_sign_in": Reason(
        "That account is a guest",
        "A guest's sign-in is governed by another organisation, so we do not go by it.",
        ("Sign in again with an account of your own organisation.",),
    ),
    "personal_at_sign_in": Reason(
        "That is a personal Microsoft account",
        "Members sign in with their work account.",
        ("Sign in again with your work account.",),
    ),
    "no_mfa_at_sign_in": Reason(
        "Your sign-in did not carry MFA",
        "We let nobody in who signed in without multi-factor authentication, and Microsoft says that you did.",
        (
            "In the Microsoft Entra admin centre, under Conditional Access, switch on a policy that requires MFA of "
            "your members for our application ({apps}), with no exception for this location.",
            "Sign out at Microsoft, or use a private window, and sign in again with MFA.",
        ),
        owner=ADMINISTRATOR,
    ),
    "no_context": Reason(
        "Your sign-in did not meet the authentication context {context}",
        "We let somebody in when Microsoft confirms that your organisation's policy for the authentication context "
        "{context} was met, and it did not.",
        (
            "In the Microsoft Entra admin centre, under Conditional Access, publish the authentication context "
            "{context}, and switch on a policy that targets it and requires MFA of your members.",
            "Sign in again.",
        ),
        owner=ADMINISTRATOR,
    ),
    "mfa_unknown": Reason(
        "Microsoft does not tell us that you used MFA",
        "We let nobody in without multi-factor authentication that we can see. What you sign in with does not say how "
        "you did, and Microsoft gave us nothing else that does.",
        (
            "In the Microsoft Entra admin centre, under Conditional Access, switch on a policy that requires MFA of "
            "your members for our application ({apps}) and for Microsoft Partner Center.",
            "Let a Global Administrator approve our application for the whole organisation, under Enterprise "
            "applications, so that Microsoft tells us how members sign in.",
            "Sign in again.",
        ),
        owner=ADMINISTRATOR,
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
        ("Sign in again, and enter your password and MFA at Microsoft.",),
    ),
    "vault_down": Reason(
        "We could not store the connection safely",
        "Our key vault does not answer as it should, so we kept nothing. Your invitation is still good.",
        ("Wait a few minutes.", "Open the invitation again."),
        owner=NOBODY,
        status=503,
    ),
    "microsoft_down": Reason(
        "Microsoft does not answer right now",
        "We could not finish the checks, so we kept nothing. Your invitation is still good.",
        ("Wait a few minutes.", "Open the invitation again."),
        owner=NOBODY,
        status=503,
    ),
    "our_fault": Reason(
        "Something is wrong on our side",
        "Microsoft refused our application, not you. We kept nothing.",
        ("Tell our support the reference below.", "Your invitation stays good."),
        owner=VENDOR,
        status=502,
    ),
    "another_cloud": Reason(
        "This tenant lives in another cloud",
        "Microsoft keeps your organisation in another of its national clouds than the one this invitation is for, and "
        "connections never cross from one to another.",
        (
            "Tell us which cloud your organisation is in.",
            "We send an invitation for that cloud.",
        ),
        owner=VENDOR,
        status=502,
    ),
    "unknown_tenant": Reason(
        "Microsoft does not know this tenant",
        "The invitation is for a tenant that Microsoft does not find: its id may be mistyped, or it was deleted.",
        (
            "Compare the tenant id with the one in your Entra admin center, and tell us the right one.",
            "We send an invitation for that tenant.",
        ),
        owner=VENDOR,
        status=502,
    ),
    "microsoft_refused": Reason(
        "Microsoft refused the sign-in",
        "Microsoft ended the sign-in with an error.",
        ("Open the invitation again.", "If it happens twice, tell our support the reference below."),
    ),
}
