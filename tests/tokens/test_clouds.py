import pytest

from tokens.clouds import CHINA, CLOUDS, GLOBAL, USGOV, Audience, UnknownCloud, cloud_named


def test_every_cloud_is_found_by_its_name():
    assert [cloud_named(name) for name in ("global", "usgov", "china")] == [GLOBAL, USGOV, CHINA]
    assert list(CLOUDS) == ["global", "usgov", "china"]


def test_germany_is_refused_with_the_day_it_closed():
    with pytest.raises(UnknownCloud, match="29 October 2021"):
        cloud_named("germany")


def test_an_unknown_cloud_is_refused_with_the_names_that_exist():
    with pytest.raises(UnknownCloud, match="global, usgov, china"):
        cloud_named("Global")


@pytest.mark.parametrize(
    ("cloud", "audience", "root", "scope"),
    [
        (GLOBAL, Audience.GRAPH, "https://graph.microsoft.com", "https://graph.microsoft.com/x"),
        (GLOBAL, Audience.PARTNER_CENTER, "https://api.partnercenter.microsoft.com", None),
        (GLOBAL, Audience.ARM, "https://management.azure.com", None),
        (GLOBAL, Audience.PARTNER, "https://api.partner.microsoft.com", None),
        (USGOV, Audience.PARTNER_CENTER, "https://api.partnercenter.microsoft.com", None),
        (
            USGOV,
            Audience.ARM,
            "https://management.usgovcloudapi.net",
            "https://management.core.usgovcloudapi.net/x",
        ),
        (CHINA, Audience.PARTNER_CENTER, "https://partner.partnercenterapi.microsoftonline.cn", None),
        (CHINA, Audience.GRAPH, "https://microsoftgraph.chinacloudapi.cn", None),
    ],
)
def test_each_api_of_each_cloud_has_its_own_address_and_scope(cloud, audience, root, scope):
    assert cloud.root(audience) == root
    assert cloud.scope(audience, "x") == (scope or f"{root}/x")
    assert cloud.default_scope(audience) == (scope or f"{root}/x")[:-1] + ".default"


def test_an_api_a_cloud_does_not_have_is_refused():
    with pytest.raises(ValueError, match="has no partner API"):
        CHINA.root(Audience.PARTNER)


def test_authority_and_issuer_name_the_tenant_at_the_current_login_host():
    assert GLOBAL.authority("organizations") == "https://login.microsoftonline.com/organizations"
    assert CHINA.issuer("tid") == "https://login.partner.microsoftonline.cn/tid/v2.0"


@pytest.mark.parametrize("tenant", ["", "../common", "a/b", "a?b", "a#b", "a b", "@evil", ".", "a\n"])
def test_a_text_that_is_no_tenant_does_not_become_part_of_an_address(tenant):
    with pytest.raises(ValueError, match="tenant"):
        GLOBAL.authority(tenant)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("login.microsoftonline.com", True),
        ("graph.microsoft.com", True),
        ("cpv-tokens.vault.azure.net", True),
        ("vault.azure.net", False),
        ("a.b.vault.azure.net", False),
        (".vault.azure.net", False),
        ("cpv.vault.azure.net.evil.example", False),
        ("cpv.vault.azure.cn", False),
        ("login.microsoftonline.us", False),
        ("login.windows.net", False),
        ("graph.microsoft.com.", False),
        ("xgraph.microsoft.com", False),
        ("", False),
    ],
)
def test_a_cloud_allows_its_exact_hosts_and_one_label_before_its_vaults(host, allowed):
    assert GLOBAL.allows(host) is allowed
