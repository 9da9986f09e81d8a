"""Entra's errors in Entra's shape; numbers and meanings from Microsoft's page "Microsoft Entra error codes"."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

from werkzeug import Response

from sandbox.asks import Ask, reply


class Kind(NamedTuple):
    """How one AADSTS number is reported."""

    error: str
    text: str
    suberror: str | None = None
    status: int = 400
    claims: bool = False


def _policy(text: str) -> Kind:
    """A policy of the tenant refuses; recorded for 53003 with both extras, which its kin are assumed to share."""
    return Kind("interaction_required", text, "message_only", claims=True)


def _passing(text: str) -> Kind:
    return Kind("temporarily_unavailable", text, status=503)


KINDS: dict[int, Kind] = {
    50011: Kind("invalid_request", "The redirect URI '{0}' does not match the redirect URIs configured for '{1}'."),
    50020: Kind("interaction_required", "User account '{0}' does not exist in tenant '{1}' and cannot sign in there."),
    50034: Kind("invalid_grant", "The user account {0} does not exist in the {1} directory.", "bad_token"),
    50053: Kind("invalid_grant", "The account is locked."),
    50057: Kind("invalid_grant", "The user account is disabled."),
    50058: Kind("login_required", "A silent sign-in request was sent but no user is signed in."),
    50074: Kind("interaction_required", "Strong authentication is required.", "basic_action", claims=True),
    50076: Kind(
        "interaction_required",
        "Due to a configuration change made by your administrator, or because you moved to a new location, "
        "you must use multi-factor authentication to access '{0}'.",
        "basic_action",
        claims=True,
    ),
    50078: Kind(
        "interaction_required", "Presented multi-factor authentication has expired.", "basic_action", claims=True
    ),
    50079: Kind("interaction_required", "You must enroll in multi-factor authentication.", "basic_action", claims=True),
    50105: Kind("interaction_required", "The signed in user is not assigned to a role for the application."),
    50158: Kind("interaction_required", "External security challenge not satisfied.", "basic_action", claims=True),
    50173: Kind(
        "invalid_grant",
        "The provided grant has expired due to it being revoked, a fresh auth token is needed. "
        "The user might have changed or reset their password.",
        "bad_token",
    ),
    50196: Kind("invalid_grant", "The server terminated an operation because it encountered a client request loop."),
    53000: _policy("Device is not in required device state: compliant."),
    53003: _policy("Access has been blocked by Conditional Access policies."),
    54005: Kind("invalid_grant", "OAuth2 Authorization code was already redeemed, please retry with a new valid code."),
    65001: Kind(
        "invalid_grant",
        "The user or administrator has not consented to use the application with ID '{0}' named '{1}'. "
        "Send an interactive authorization request for this user and resource.",
        "consent_required",
    ),
    65004: Kind("access_denied", "User declined to consent to access the app."),
    70000: Kind("invalid_grant", "Provided grant is invalid or malformed.", "bad_token"),
    70003: Kind("unsupported_grant_type", "The app requested an unsupported grant type '{0}'."),
    70008: Kind(
        "invalid_grant",
        "The provided authorization code or refresh token has expired due to inactivity.",
        "token_expired",
    ),
    70011: Kind("invalid_scope", "The provided request must include a 'scope' input parameter. '{0}' is not valid."),
    70043: Kind("invalid_grant", "The refresh token has expired due to sign-in frequency checks.", "token_expired"),
    28002: Kind(
        "invalid_request", "Provided value for the input parameter scope '{0}' is not valid: one resource only."
    ),
    90002: Kind("invalid_tenant", "Tenant '{0}' not found. Check to make sure you have the correct tenant ID."),
    90013: Kind("invalid_request", "Invalid input received from the user."),
    90055: Kind("temporarily_unavailable", "The tenant has exceeded a limit.", status=429),
    90033: _passing("A transient error has occurred. Please try again."),
    90038: Kind("invalid_request", "Tenant '{0}' belongs to another national cloud: '{1}'."),
    90094: Kind("access_denied", "'{0}' needs permissions that only an administrator of your organization can grant."),
    500011: Kind("invalid_resource", "The resource principal named {0} was not found in the tenant named {1}."),
    500112: Kind("invalid_grant", "The reply address '{0}' does not match the one used when requesting the code."),
    501481: Kind("invalid_grant", "The Code_Verifier does not match the code_challenge supplied before."),
    650052: Kind("invalid_resource", "The app needs access to a service ('{0}') that '{1}' has not enabled."),
    650053: Kind("invalid_client", "The application asked for scope '{0}' that doesn't exist on the resource."),
    700005: Kind(
        "invalid_grant", "Provided Authorization Code is intended to use against other tenant, thus rejected."
    ),
    700016: Kind("unauthorized_client", "Application with identifier '{0}' was not found in the directory '{1}'."),
    700027: Kind("invalid_client", "Client assertion contains an invalid signature: {0}.", status=401),
    700054: Kind("unsupported_response_type", "response_type 'id_token' is not enabled for the application."),
    700082: Kind("invalid_grant", "The refresh token has expired due to inactivity.", "token_expired"),
    900144: Kind("invalid_request", "The request body must contain the following parameter: '{0}'."),
    901002: Kind("invalid_request", "The 'resource' request parameter isn't supported."),
    1002012: Kind("invalid_scope", "The provided value for scope {0} is not valid. Use '/.default'."),
    7000112: Kind("unauthorized_client", "Application '{0}' is disabled."),
    7000215: Kind("invalid_client", "Invalid client secret provided for app '{0}'.", status=401),
    7000218: Kind("invalid_client", "The request must contain 'client_assertion' or 'client_secret'.", status=401),
    7000222: Kind("invalid_client", "The provided client secret keys for app '{0}' are expired.", status=401),
    9002313: Kind("invalid_grant", "Invalid request. Request is malformed or invalid."),
    # the sign-in is over, or was never one
    16000: Kind("interaction_required", "Several users are signed in; '{0}' has to choose one."),
    50055: Kind("invalid_grant", "The password is expired.", "user_password_expired"),
    50089: Kind("invalid_grant", "The flow token is expired."),
    50126: Kind("invalid_grant", "Invalid username or password."),
    50132: Kind("invalid_grant", "The session is not valid: the password expired or was changed."),
    50133: Kind("invalid_grant", "The session is not valid: it was revoked."),
    50140: Kind("interaction_required", "The sign-in was interrupted to ask whether to stay signed in."),
    50144: Kind("invalid_grant", "The user's Active Directory password has expired.", "user_password_expired"),
    50147: Kind("invalid_request", "The size of the code challenge parameter is not valid."),
    51004: Kind("invalid_grant", "The user account {0} does not exist in the {1} directory."),
    90072: Kind("interaction_required", "The external account '{0}' does not exist in tenant '{1}'."),
    700084: Kind(
        "invalid_grant", "The refresh token was issued to a single page app and lived a fixed time.", "token_expired"
    ),
    # the user has something to do, or a policy stands in the way
    50072: Kind("interaction_required", "The user must enroll for a second factor.", "basic_action", claims=True),
    50097: Kind("interaction_required", "Device authentication is required.", "basic_action", claims=True),
    50131: _policy("The device or the request does not satisfy an access policy."),
    53001: _policy("Device is not in required device state: domain joined."),
    53005: Kind(
        "unauthorized_client",
        "Application needs to enforce Intune protection policies.",
        "protection_policy_required",
    ),
    53011: _policy("User blocked due to risk on home tenant."),
    530003: _policy("Your device is required to be managed to access this resource."),
    530032: _policy("Access has been blocked by security policy."),
    530034: _policy("A delegated administrator was blocked due to account risk in the home tenant."),
    530035: _policy("Access has been blocked by security defaults."),
    530084: _policy("Access has been blocked by a token protection policy: the token is not bound."),
    # consent, and what an administrator switched off
    65005: Kind("invalid_resource", "The app's required resource access list lacks the resource '{0}'."),
    70001: Kind("unauthorized_client", "The application '{0}' is disabled or not found."),
    90008: Kind("invalid_request", "The application '{0}' asks for a token for itself without the right to sign in."),
    90009: Kind("invalid_request", "The application '{0}' asks for a token for itself and must name its GUID."),
    90095: Kind("access_denied", "An administrator was asked to approve '{0}'."),
    90099: Kind("invalid_grant", "The application '{0}' has not been authorized in the tenant '{1}'."),
    500014: Kind("invalid_resource", "The service principal for resource '{0}' is disabled."),
    500021: Kind("access_denied", "Access to '{1}' tenant is denied."),
    500022: Kind("access_denied", "Access to '{1}' tenant is denied."),
    500212: Kind("access_denied", "The user's administrator does not allow access to the tenant '{1}'."),
    500213: Kind("access_denied", "The cross-tenant access policy of '{1}' does not allow this user."),
    650054: Kind("invalid_resource", "The resource '{0}' has been removed or is no longer available."),
    650056: Kind("unauthorized_client", "Misconfigured application: no permission for '{0}' in its registration."),
    650057: Kind("invalid_resource", "The registration of the client does not list the resource '{0}'."),
    700011: Kind("unauthorized_client", "Application with identifier '{0}' was not found in the directory."),
    700022: Kind("invalid_request", "The scope '{0}' names more than one resource."),
    5000224: Kind("invalid_resource", "The resource '{0}' is not available."),
    7000113: Kind("unauthorized_client", "Application '{0}' is not authorized to make application on-behalf-of calls."),
    # the application's own registration and credential
    50012: Kind("invalid_client", "Authentication failed: the signing certificate is not valid.", status=401),
    50194: Kind("unauthorized_client", "Application '{0}' is not configured as a multi-tenant application."),
    70002: Kind("invalid_client", "Error validating credentials.", status=401),
    700021: Kind("invalid_client", "Client assertion application identifier does not match '{0}'.", status=401),
    700024: Kind("invalid_client", "Client assertion is not within its valid time range.", status=401),
    700025: Kind(
        "invalid_client", "Client is public, so neither assertion nor secret should be presented.", status=401
    ),
    700030: Kind("invalid_client", "Invalid certificate: its subject name is not authorized.", status=401),
    700211: Kind("invalid_client", "No matching federated identity record found for the issuer.", status=401),
    700212: Kind("invalid_client", "No matching federated identity record found for audience '{0}'.", status=401),
    700213: Kind("invalid_client", "No matching federated identity record found for subject '{0}'.", status=401),
    700229: Kind("invalid_client", "Only app tokens can be used as federated identity credentials.", status=401),
    900971: Kind("invalid_request", "No reply address provided."),
    # another national cloud
    90043: Kind("invalid_request", "The national cloud of '{1}' cannot be redirected to."),
    900382: Kind("invalid_request", "Confidential Client is not supported in Cross Cloud request."),
    900432: Kind("invalid_request", "Confidential Client is not supported in Cross Cloud request."),
    # it passes
    40010: _passing("The federated identity provider has a passing fault."),
    50033: _passing("A transient error has occurred."),
    50087: _passing("A transient error has occurred during strong authentication."),
    90006: _passing("The service is temporarily unavailable."),
    90012: _passing("The request has timed out."),
    90024: _passing("A transient error has occurred: the budget of the request is used up."),
    90090: _passing("The service is temporarily unavailable."),
}


# Nobody is led back to the app with these: there is no app, no tenant, or no address to be trusted.
SHOWN_HERE = frozenset({50011, 50194, 90002, 90038, 700016, 900971})


class EntraError(Exception):
    """A refusal by number; `words` fill the gaps of its text. `suberror` replaces the usual one."""

    def __init__(self, code: int, *words: str, suberror: str | None = None) -> None:
        super().__init__(f"AADSTS{code}")
        self.code = code
        self.kind = KINDS.get(code) or Kind("invalid_grant", "The request was refused.")
        if suberror:
            self.kind = self.kind._replace(suberror=suberror)
        self._words = (*words, "", "")

    def description(self, ask: Ask) -> str:
        trace, correlation, at = _traces(ask)
        text = self.kind.text.format(*self._words)
        return f"AADSTS{self.code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}"

    def error_uri(self, ask: Ask) -> str:
        return f"https://{ask.place.cloud.login}/error?code={self.code}"

    def body(self, ask: Ask) -> dict[str, Any]:
        """The error document of the token endpoint."""
        trace, correlation, at = _traces(ask)
        body: dict[str, Any] = {
            "error": self.kind.error,
            "error_description": self.description(ask),
            "error_codes": [self.code],
            "timestamp": at,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": self.error_uri(ask),
        }
        if self.kind.suberror:
            body["suberror"] = self.kind.suberror
        if self.kind.claims:
            body["claims"] = json.dumps({"access_token": {"capolids": {"essential": True, "values": [trace]}}})
        return body

    def response(self, ask: Ask) -> Response:
        headers = {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
        return reply(self.body(ask), self.kind.status, headers)


def _traces(ask: Ask) -> tuple[str, str, str]:
    """Trace id, correlation id (the caller's own, when it sent one) and time, the same for one whole request."""
    traces = ask.call.detail.setdefault("trace_id", str(uuid.uuid4()))
    correlation = ask.request.headers.get("client-request-id", "")
    try:
        correlation = str(uuid.UUID(correlation))
    except ValueError:
        correlation = ask.call.detail.setdefault("correlation_id", str(uuid.uuid4()))
    at = datetime.fromtimestamp(ask.world.now(), UTC)
    return traces, correlation, f"{at:%Y-%m-%d %H:%M:%S}Z"
