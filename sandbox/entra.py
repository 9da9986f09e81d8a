"""The machine-facing part of Entra: discovery, keys, and the way to the token endpoint."""

from __future__ import annotations

import uuid

from werkzeug import Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from sandbox import jose
from sandbox.asks import Ask, reply
from sandbox.clouds import CLOUDS, MSA_TENANT, Cloud
from sandbox.entraerrors import EntraError
from sandbox.entratoken import token
from sandbox.minting import v2_issuer
from sandbox.world import World

SHARED = ("organizations", "common", "consumers")
_RULES = Map(
    [
        Rule("/common/discovery/instance", endpoint="instance"),
        Rule("/<segment>/v2.0/.well-known/openid-configuration", endpoint="configuration"),
        Rule("/<segment>/.well-known/openid-configuration", endpoint="configuration"),
        Rule("/<segment>/discovery/v2.0/keys", endpoint="keys"),
        Rule("/<segment>/discovery/keys", endpoint="keys"),
        Rule("/<segment>/oauth2/v2.0/token", endpoint="token", methods=["POST"]),
        Rule("/<segment>/oauth2/token", endpoint="token_v1", methods=["POST"]),
    ]
)


def serve(ask: Ask) -> Response:
    """Answer a request to a login host."""
    try:
        endpoint, words = _RULES.bind_to_environ(ask.request.environ).match()
        if endpoint == "instance":
            return _instance(ask)
        return _ENDPOINTS[endpoint](ask, words["segment"].lower())
    except EntraError as error:
        ask.call.detail["aadsts"] = error.code
        return error.response(ask)
    except HTTPException as error:
        return Response(error.description, error.code)


def known_segment(world: World, cloud: Cloud, segment: str) -> str:
    """
    The tenant part of an address as a tenant id, or `organizations`/`common` as it is.

    :raises EntraError: 90002 for an unknown tenant, 90038 for one of another cloud
    """
    if segment in SHARED or segment == MSA_TENANT:
        return segment
    tenant = world.tenants.get(segment) or next((t for t in world.tenants.values() if t.domain == segment), None)
    owner = tenant or world.partner_of(segment)
    if owner is None:
        raise EntraError(90002, segment)
    if owner.cloud != cloud:
        raise EntraError(90038, segment, owner.cloud.name)
    return tenant.id if tenant else str(uuid.UUID(segment))


def public_base(world: World, cloud: Cloud) -> str:
    """Where a browser finds the sign-in pages of a cloud: under the stand-in's own address."""
    return world.public_url if cloud.name == "global" else f"{world.public_url}/cloud/{cloud.name}"


def _configuration(ask: Ask, segment: str) -> Response:
    """Microsoft's page "OpenID Connect on the Microsoft identity platform", but for the browser's endpoints."""
    cloud, host = ask.place.cloud, ask.place.host
    place = known_segment(ask.world, cloud, segment)
    base = f"{public_base(ask.world, cloud)}/{segment}"
    return reply(
        {
            "token_endpoint": f"https://{host}/{segment}/oauth2/v2.0/token",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": f"https://{host}/{segment}/discovery/v2.0/keys",
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": v2_issuer(cloud, "{tenantid}" if place in SHARED else place),
            "request_uri_parameter_supported": False,
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "http_logout_supported": True,
            "frontchannel_logout_supported": True,
            "end_session_endpoint": f"{base}/oauth2/v2.0/logout",
            "claims_supported": [
                "sub",
                "iss",
                "aud",
                "exp",
                "iat",
                "nonce",
                "preferred_username",
                "name",
                "tid",
                "ver",
            ],
            "tenant_region_scope": None if place in SHARED else "EU",
            "cloud_instance_name": host.partition(".")[2],
            "cloud_graph_host_name": "graph.windows.net",
            "msgraph_host": cloud.graph,
        }
    )


def _keys(ask: Ask, segment: str) -> Response:
    known_segment(ask.world, ask.place.cloud, segment)
    issuer = v2_issuer(ask.place.cloud, "{tenantid}")
    return reply({"keys": [jose.jwk(ask.world.key(ask.place.cloud.name), issuer)]})


def _instance(ask: Ask) -> Response:
    """Which hosts are the same cloud; MSAL asks for it when it looks into its cache."""
    asked = ask.request.args.get("authorization_endpoint", f"https://{ask.place.host}/common/oauth2/v2.0/authorize")
    authority = asked.partition("/oauth2/")[0]
    metadata = [
        {"preferred_network": cloud.login, "preferred_cache": cloud.login, "aliases": list(cloud.logins)}
        for cloud in CLOUDS.values()
    ]
    return reply(
        {
            "tenant_discovery_endpoint": f"{authority}/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": metadata,
        }
    )


def _token(ask: Ask, segment: str) -> Response:
    return token(ask, known_segment(ask.world, ask.place.cloud, segment), v1=False)


def _token_v1(ask: Ask, segment: str) -> Response:
    return token(ask, known_segment(ask.world, ask.place.cloud, segment), v1=True)


_ENDPOINTS = {"configuration": _configuration, "keys": _keys, "token": _token, "token_v1": _token_v1}
