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


KINDS: dict[int, Kind] = {
    50011: Kind("invalid_request", "The redirect URI '{0}' does not match the redirect URIs configured for '{1}'."),
    50020: Kind("interaction_required", "User account '{0}' does not exist in tenant '{1}' and cannot sign in there."),
    50034: Kind("invalid_grant", "The user account {0} does not exist in the {1} directory."),
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
    50078: Kind("interaction_required", "Presented multi-factor authentication has expired.", "basic_action"),
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
    53000: Kind("interaction_required", "Device is not in required device state: compliant.", "message_only"),
    53003: Kind("interaction_required", "Access has been blocked by Conditional Access policies.", "message_only"),
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
    70008: Kind("invalid_grant", "The provided authorization code or refresh token has expired due to inactivity."),
    70011: Kind("invalid_scope", "The provided request must include a 'scope' input parameter. '{0}' is not valid."),
    70043: Kind("invalid_grant", "The refresh token has expired due to sign-in frequency checks.", "token_expired"),
    28002: Kind(
        "invalid_request", "Provided value for the input parameter scope '{0}' is not valid: one resource only."
    ),
    90002: Kind("invalid_tenant", "Tenant '{0}' not found. Check to make sure you have the correct tenant ID."),
    90013: Kind("invalid_request", "Invalid input received from the user."),
    90055: Kind("temporarily_unavailable", "The tenant has exceeded a limit.", status=429),
    90033: Kind("temporarily_unavailable", "A transient error has occurred. Please try again.", status=503),
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
    700024: Kind("invalid_client", "Client assertion is not within its valid time range.", status=401),
    700027: Kind("invalid_client", "Client assertion contains an invalid signature: {0}.", status=401),
    700054: Kind("unsupported_response_type", "response_type 'id_token' is not enabled for the application."),
    700082: Kind("invalid_grant", "The refresh token has expired due to inactivity.", "token_expired"),
    700212: Kind("invalid_client", "No matching federated identity record found for audience '{0}'.", status=401),
    700213: Kind("invalid_client", "No matching federated identity record found for subject '{0}'.", status=401),
    900144: Kind("invalid_request", "The request body must contain the following parameter: '{0}'."),
    901002: Kind("invalid_request", "The 'resource' request parameter isn't supported."),
    1002012: Kind("invalid_scope", "The provided value for scope {0} is not valid. Use '/.default'."),
    7000112: Kind("unauthorized_client", "Application '{0}' is disabled."),
    7000215: Kind("invalid_client", "Invalid client secret provided for app '{0}'.", status=401),
    7000218: Kind("invalid_client", "The request must contain 'client_assertion' or 'client_secret'.", status=401),
    7000222: Kind("invalid_client", "The provided client secret keys for app '{0}' are expired.", status=401),
    9002313: Kind("invalid_grant", "Invalid request. Request is malformed or invalid."),
}


class EntraError(Exception):
    """A refusal by number; `words` fill the gaps of its text."""

    def __init__(self, code: int, *words: str) -> None:
        super().__init__(f"AADSTS{code}")
        self.code = code
        self.kind = KINDS.get(code) or Kind("invalid_grant", "The request was refused.")
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
