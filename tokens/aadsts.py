"""What Entra's AADSTS numbers mean for us: who acts, and how."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Who acts on a refusal; the values are stored with a partner's row."""

    REAUTH = "reauth"  # the partner signs in again
    MFA = "mfa"  # the same, with a second factor
    CONSENT = "consent"  # the partner agrees (again) to our permissions
    APP_CREDENTIAL = "app_credential"  # ours: an alarm for all partners, none of whom is to blame
    CONFIG = "config"  # ours: registration, cloud or address
    PARTNER_ADMIN = "partner_admin"  # a policy or switch in the partner's tenant; signing in again does not help
    TENANT = "tenant"  # the tenant is not where we ask: deleted, mistyped, or of another cloud; no other is concerned
    RETRY = "retry"  # nobody: it passes


@dataclass(frozen=True)
class Meaning:
    """One refusal in plain words; `wait` is in seconds, 0 when the number asks for no pause of its own."""

    code: int
    kind: Kind
    summary: str
    advice: str
    known: bool = True
    wait: int = 0


_AGAIN = "Sign in again through a fresh consent link."
_WITH_MFA = "Open a fresh consent link and complete multifactor authentication."
_AGREE = "Open a fresh consent link and accept the permissions."
_SUPPORT = "The vendor's support must correct this; the partner need do nothing."
_POLICY = "The partner's administrator must exempt this application or its service user from the policy."
_SOON = "Nothing to do: it is tried again by itself."

ANOTHER_CLOUD = 90038

# Meanings: https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_TABLE: tuple[tuple[tuple[int, ...], Kind, str, str], ...] = (
    ((50076,), Kind.MFA, "Multifactor authentication is now required.", _WITH_MFA),
    ((50079, 50072), Kind.MFA, "The user must first register for multifactor authentication.", _WITH_MFA),
    ((50074,), Kind.MFA, "Strong authentication is required and was not passed.", _WITH_MFA),
    ((50078,), Kind.MFA, "The multifactor authentication has expired under the partner's policy.", _WITH_MFA),
    ((50158,), Kind.MFA, "An external authentication challenge was not passed.", _WITH_MFA),
    ((50173,), Kind.REAUTH, "The sign-in was revoked, for example by a password reset.", _AGAIN),
    ((50132, 50133, 50089), Kind.REAUTH, "The session is no longer valid after a password change or expiry.", _AGAIN),
    ((700082, 70008), Kind.REAUTH, "The stored sign-in expired because it was not used for too long.", _AGAIN),
    (
        (70043,),
        Kind.REAUTH,
        "The partner's sign-in frequency policy ended the session.",
        "Sign in again, and exempt the service user from the sign-in frequency policy.",
    ),
    ((70000, 9002313), Kind.REAUTH, "The stored sign-in is not valid any more.", _AGAIN),
    ((54005,), Kind.REAUTH, "This answer was used before.", "Start again from the consent link."),
    ((501481, 50147), Kind.REAUTH, "The answer belongs to another attempt.", "Start again from the consent link."),
    (
        (50034, 51004, 16000, 50020, 90072),
        Kind.REAUTH,
        "This user does not exist in the partner's tenant.",
        "Sign in with a user of the partner's own tenant.",
    ),
    ((50055,), Kind.REAUTH, "The user's password has expired.", _AGAIN),
    ((50126,), Kind.REAUTH, "The user name or password was wrong.", _AGAIN),
    ((50053,), Kind.REAUTH, "The user is locked after too many attempts.", "Wait a while, then sign in again."),
    ((50140, 50058, 50144), Kind.REAUTH, "The sign-in was interrupted.", _AGAIN),
    ((65001,), Kind.CONSENT, "The permissions were never granted, or were withdrawn.", _AGREE),
    ((65004,), Kind.CONSENT, "The permissions were declined.", _AGREE),
    (
        (90094, 90095),
        Kind.CONSENT,
        "An administrator must grant these permissions.",
        "Let a Global Administrator open the consent link.",
    ),
    (
        (90099,),
        Kind.CONSENT,
        "The application has no consent in this customer's tenant.",
        "Create the application consent for this customer.",
    ),
    ((700016, 700011, 70001), Kind.CONSENT, "The application is not present in the tenant.", _AGREE),
    (
        (7000215, 70002),
        Kind.APP_CREDENTIAL,
        "Our application's secret is wrong.",
        "The vendor's support must renew the application's credential.",
    ),
    (
        (7000222,),
        Kind.APP_CREDENTIAL,
        "Our application's secret has expired.",
        "The vendor's support must renew the application's credential.",
    ),
    (
        (700027, 50012, 700021, 700024),
        Kind.APP_CREDENTIAL,
        "Our application's certificate was not accepted.",
        "The vendor's support must check certificate, thumbprint and clock.",
    ),
    (
        (700030, 700229, 700213, 700212, 700211),
        Kind.APP_CREDENTIAL,
        "Our application's certificate or federated identity is not trusted.",
        "The vendor's support must check the application's credential.",
    ),
    ((700084,), Kind.CONFIG, "The redirect address is registered as a single-page application.", _SUPPORT),
    ((700005,), Kind.CONFIG, "The code was spent at another tenant than it was made for.", _SUPPORT),
    ((65005, 650056, 650057), Kind.CONFIG, "The application's registration lacks a permission.", _SUPPORT),
    ((90008, 90009, 901002), Kind.CONFIG, "The application asked in a way Microsoft does not accept.", _SUPPORT),
    ((70011, 28002, 700022, 70003, 900144), Kind.CONFIG, "The application asked for scopes it cannot have.", _SUPPORT),
    ((7000218, 700025), Kind.CONFIG, "The application's kind of credential does not fit.", _SUPPORT),
    ((50011, 900971, 50194), Kind.CONFIG, "The redirect address or tenancy of the application is wrong.", _SUPPORT),
    ((700054,), Kind.CONFIG, "The application asked for an answer its registration does not allow.", _SUPPORT),
    (
        (90002,),
        Kind.TENANT,
        "Microsoft knows no such tenant.",
        "Check the tenant id and the cloud; the tenant may be deleted.",
    ),
    (
        (ANOTHER_CLOUD, 900382, 900432, 90043),
        Kind.TENANT,
        "This tenant lives in another national cloud.",
        "The vendor's support must invite the partner again in the right cloud; the partner need do nothing.",
    ),
    ((50097,), Kind.PARTNER_ADMIN, "The partner's policy asks for a known device.", _POLICY),
    ((53000, 53001, 530003), Kind.PARTNER_ADMIN, "The partner's policy asks for a managed device.", _POLICY),
    (
        (53003, 530032, 50131, 530035),
        Kind.PARTNER_ADMIN,
        "A conditional access or security policy blocks the sign-in.",
        "The partner's administrator must allow this application from our addresses.",
    ),
    (
        (53011, 530034),
        Kind.PARTNER_ADMIN,
        "The user is blocked because of risk.",
        "The partner's security administrator must review the user.",
    ),
    ((530084, 53005), Kind.PARTNER_ADMIN, "The partner's policy asks for protection a server cannot give.", _POLICY),
    (
        (650052, 500011, 650054),
        Kind.PARTNER_ADMIN,
        "A Microsoft service this needs is not set up in the tenant.",
        "The partner's administrator must create its service principal in the tenant.",
    ),
    (
        (7000112, 7000113),
        Kind.PARTNER_ADMIN,
        "The application is switched off in the tenant.",
        "The partner's administrator must switch the application on again.",
    ),
    (
        (50057,),
        Kind.PARTNER_ADMIN,
        "The user is disabled.",
        "The partner's administrator must enable the user, or another user must consent.",
    ),
    (
        (50105,),
        Kind.PARTNER_ADMIN,
        "The user is not assigned to the application.",
        "The partner's administrator must assign the user to the application.",
    ),
    (
        (500014, 5000224),
        Kind.PARTNER_ADMIN,
        "The service or the tenant is not available any more.",
        "The partner's administrator must check the tenant's subscription.",
    ),
    (
        (500021, 500022, 500212, 500213),
        Kind.PARTNER_ADMIN,
        "The partner's tenant restrictions refuse the access.",
        "The partner's administrator must allow the vendor's tenant.",
    ),
    ((90055,), Kind.RETRY, "Microsoft asks to slow down.", _SOON),
    (
        (90033, 90024, 90012, 90006, 90090, 50033, 50087, 40010),
        Kind.RETRY,
        "Microsoft's sign-in service has a passing fault.",
        _SOON,
    ),
    ((50196,), Kind.RETRY, "Microsoft saw the same request too often.", _SOON),
)
BY_LOCATION = frozenset({53003, 530032, 50131, 530035})  # most often because a policy does not know our addresses
_WAIT = {50196: 900}  # seconds; a loop that goes on sooner prolongs its own punishment

MEANINGS: dict[int, Meaning] = {
    code: Meaning(code, kind, summary, advice, wait=_WAIT.get(code, 0))
    for codes, kind, summary, advice in _TABLE
    for code in codes
}

# https://learn.microsoft.com/entra/identity-platform/reference-error-codes#handling-error-codes-in-your-application
_SUBERRORS = {
    "basic_action": Kind.MFA,
    "additional_action": Kind.PARTNER_ADMIN,
    "message_only": Kind.PARTNER_ADMIN,
    "consent_required": Kind.CONSENT,
    "user_password_expired": Kind.REAUTH,
    "bad_token": Kind.REAUTH,
    "token_expired": Kind.REAUTH,
    "protection_policy_required": Kind.PARTNER_ADMIN,
    "client_mismatch": Kind.CONFIG,
    "device_authentication_failed": Kind.PARTNER_ADMIN,
}
_ERRORS = {
    "invalid_grant": Kind.REAUTH,
    "interaction_required": Kind.REAUTH,
    "login_required": Kind.REAUTH,
    "consent_required": Kind.CONSENT,
    "access_denied": Kind.CONSENT,
    "invalid_client": Kind.APP_CREDENTIAL,
    "server_error": Kind.RETRY,
    "temporarily_unavailable": Kind.RETRY,
}
_UNKNOWN = {
    Kind.REAUTH: ("Microsoft refused the stored sign-in.", _AGAIN),
    Kind.MFA: ("Microsoft asks the user for a further step.", _WITH_MFA),
    Kind.CONSENT: ("The permissions were not granted.", _AGREE),
    Kind.APP_CREDENTIAL: ("Our application's credential was refused.", _SUPPORT),
    Kind.CONFIG: ("Microsoft refused the request for a reason we do not know yet.", _SUPPORT),
    Kind.PARTNER_ADMIN: ("A policy of the partner's tenant refuses the access.", _POLICY),
    Kind.TENANT: ("Microsoft knows no such tenant.", _SUPPORT),
    Kind.RETRY: ("Microsoft's sign-in service is not available right now.", _SOON),
}


def classify(error_codes: Sequence[int], error: str, suberror: str, http_status: int) -> Meaning:
    """
    Return what a refusal means, by number, then suberror, then error, then HTTP status (0 when there is none).

    https://learn.microsoft.com/entra/identity-platform/reference-error-codes
    """
    known = next((MEANINGS[code] for code in error_codes if code in MEANINGS), None)
    if known:
        return known
    by_status = Kind.RETRY if http_status == 429 or http_status >= 500 else Kind.CONFIG
    return unknown(_SUBERRORS.get(suberror) or _ERRORS.get(error) or by_status, *error_codes)


def unknown(kind: Kind, *codes: int) -> Meaning:
    """Return a meaning in general words for a number the table does not have; code 0 when there is no number."""
    summary, advice = _UNKNOWN[kind]
    return Meaning(next(iter(codes), 0), kind, summary, advice, known=False)


def codes_in(description: str) -> list[int]:
    """Return the numbers behind "AADSTS" in a text from a redirect, in order, each once; the text is not trusted."""
    return list(dict.fromkeys(int(code) for code in re.findall(r"AADSTS([0-9]{4,8})(?![0-9])", description[:4096])))
