"""Without a person only Key Vault is opened, and Azure AD Graph never: refused at the door, before anything leaves."""

from urllib.parse import urlencode

import msal
import pytest
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ClientSecretCredential

from tests.tokens.fake_entra import APP, PARTNER
from tokens import permissions
from tokens.clouds import CHINA, CLOUDS, GLOBAL, USGOV, Audience
from tokens.http import HostRefused
from tokens.refused_requests import AppOnlyRefused, GrantRefused, RetiredRefused, refuse_retired

AZURE_AD_GRAPH = "00000002-0000-0000-c000-000000000000"
VAULT = "https://vault.azure.net/.default"
EVERYTHING_ELSE = [
    "https://graph.microsoft.com/.default",
    "https://api.partnercenter.microsoft.com/.default",
    "https://api.partner.microsoft.com/.default",
    "https://management.azure.com/.default",
    "https://vault.azure.cn/.default",
    "https://vault.azure.net/.default https://graph.microsoft.com/.default",
    "api://somebody/.default",
    "",
]


def ask(network, cloud=GLOBAL, tenant=PARTNER, body=None, **form):
    address = f"https://{cloud.login_host}/{tenant}/oauth2/v2.0/token"
    return network.session.post(address, data=form if body is None else body)


@pytest.mark.parametrize("scope", EVERYTHING_ELSE)
def test_for_the_application_alone_nothing_but_the_vault_is_asked_for(network, server, scope):
    for grant in ("client_credentials", "Client_Credentials"):
        with pytest.raises(AppOnlyRefused, match="Key Vault only"):
            ask(network, grant_type=grant, client_id=APP, scope=scope)

    assert server.seen == []


def test_a_resource_of_the_older_kind_is_refused_too(network, server):
    for form in (
        {"resource": "https://graph.microsoft.com"},
        {"scope": VAULT, "resource": "https://graph.microsoft.com"},
    ):
        with pytest.raises(AppOnlyRefused):
            ask(network, grant_type="client_credentials", client_id=APP, **form)

    assert server.seen == []


def test_a_second_grant_in_the_same_request_does_not_hide_the_first(network, server):
    hidden = urlencode([("grant_type", "refresh_token"), ("grant_type", "client_credentials"), ("scope", VAULT)])

    for body in (hidden, hidden.encode(), hidden.replace("_", "%5F")):
        with pytest.raises(AppOnlyRefused):
            ask(network, body=body)

    assert server.seen == []


@pytest.mark.parametrize("grant", ["password", "urn:ietf:params:oauth:grant-type:jwt-bearer", "device_code", ""])
def test_tokens_are_had_in_no_other_way_than_ours(network, server, grant):
    with pytest.raises(GrantRefused):
        ask(network, grant_type=grant, client_id=APP, scope=VAULT)

    assert server.seen == []


def test_a_request_that_cannot_be_read_does_not_leave(network, server):
    with pytest.raises(GrantRefused):
        ask(network, body=iter([b"grant_type=client_credentials"]))

    assert server.seen == []


@pytest.mark.parametrize("cloud", CLOUDS.values(), ids=CLOUDS)
def test_each_cloud_lets_the_application_alone_open_its_own_vault(network, server, cloud):
    ask(network, cloud, grant_type="client_credentials", client_id=APP, scope=f"https://{cloud.vault_suffix}/.default")

    assert len(server.seen) == 1


@pytest.mark.parametrize("grant", ["authorization_code", "refresh_token"])
def test_what_a_person_agreed_to_passes(network, server, grant):
    ask(network, grant_type=grant, client_id=APP, scope="https://graph.microsoft.com/User.Read.All offline_access")

    assert len(server.seen) == 1


def test_what_is_no_token_request_passes(network, server):
    ask(network, body="")
    ask(network, body="hello=world")

    assert len(server.seen) == 2


def test_msal_itself_cannot_get_past(network, server):
    application = msal.ConfidentialClientApplication(
        APP,
        client_credential="secret",
        authority=GLOBAL.authority(PARTNER),
        instance_discovery=False,
        http_client=network.session,
    )

    with pytest.raises(AppOnlyRefused):
        application.acquire_token_for_client(["https://graph.microsoft.com/.default"])

    assert server.posts() == []


def test_azures_own_credential_cannot_get_past(network, server):
    transport = RequestsTransport(session=network.session, session_owner=False)
    credential = ClientSecretCredential(
        PARTNER, APP, "secret", disable_instance_discovery=True, transport=transport, retry_total=0
    )

    with pytest.raises(Exception, match="Key Vault only"):
        credential.get_token("https://api.partnercenter.microsoft.com/.default")

    assert server.posts() == []
    assert credential.get_token(VAULT).token == "AT"


# --- Azure AD Graph -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("host", ["graph.windows.net", "graph.microsoftazure.us", "graph.chinacloudapi.cn"])
def test_azure_ad_graphs_addresses_are_refused_by_name(network, server, host):
    with pytest.raises(HostRefused, match=f"{host} is retired; ask Microsoft Graph instead"):
        network.request("GET", f"https://{host}/contoso.test/users?api-version=1.6")

    assert server.seen == []


@pytest.mark.parametrize("cloud", CLOUDS.values(), ids=list(CLOUDS))
def test_microsoft_graph_is_not_taken_for_it_in_any_cloud(cloud):
    refuse_retired([cloud.scope(Audience.GRAPH, "User.Read.All")])


@pytest.mark.parametrize(
    "form",
    [
        {"scope": "https://graph.chinacloudapi.cn/.default"},
        {"scope": "https://graph.windows.net/.default"},
        {"scope": "openid https://GRAPH.windows.net/User.Read"},
        {"scope": f"{AZURE_AD_GRAPH}/.default offline_access"},
        {"resource": AZURE_AD_GRAPH},
        {"resource": "https://graph.windows.net/"},
    ],
)
@pytest.mark.parametrize("grant", ["refresh_token", "authorization_code", "client_credentials"])
def test_tokens_for_azure_ad_graph_are_refused_by_name(network, server, grant, form):
    with pytest.raises(RetiredRefused, match=r"Azure AD Graph .* is retired; ask for Microsoft Graph"):
        ask(network, grant_type=grant, client_id=APP, **form)

    assert server.seen == []


def test_nobody_is_asked_to_agree_to_azure_ad_graph(entra, server):
    scopes, back = ["https://graph.windows.net/User.Read"], "https://panel.example/connect/callback"
    with pytest.raises(RetiredRefused):
        entra.begin(tenant=PARTNER, scopes=scopes, redirect_uri=back)
    with pytest.raises(RetiredRefused):
        entra.admin_consent_address(tenant=PARTNER, scopes=scopes, redirect_uri=back, state="s")

    assert server.seen == []


@pytest.mark.parametrize("name", permissions.SETS)
def test_no_set_of_permissions_names_it(name):
    asked_for = {entry["resourceAppId"] for entry in permissions.manifest(permissions.asked(name))}

    assert AZURE_AD_GRAPH not in asked_for
    for cloud in (GLOBAL, USGOV, CHINA):
        assert not [scope for scope in permissions.scopes(permissions.asked(name), cloud) if "graph.windows" in scope]
