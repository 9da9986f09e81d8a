"""Key Vault going wrong, as Microsoft's own client meets it: before the effect, after it, at one operation alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseError
from azure.keyvault.secrets import SecretClient

from sandbox.world import World
from tests.sandbox.conftest import VAULT, secret_client

NAME = "rt-one"


def written(world: World) -> list[tuple[str, bool]]:
    return [(version.value, version.enabled) for version in world.vault(VAULT[8:]).secrets.get(NAME, [])]


OPERATIONS: dict[str, Callable[[SecretClient, str], object]] = {
    "get": lambda client, version: client.get_secret(NAME),
    "set": lambda client, version: client.set_secret(NAME, "two"),
    "update": lambda client, version: client.update_secret_properties(NAME, version, enabled=False),
}
EFFECTS = {
    "get": [("one", True)],
    "set": [("one", True), ("two", True)],
    "update": [("one", False)],
}


def prepared(http: requests.Session) -> tuple[SecretClient, str]:
    client = secret_client(http)
    return client, str(client.set_secret(NAME, "one").properties.version)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("kind", "error"),
    [("timeout_after", ServiceResponseError), ("lost", ServiceResponseError), ("504_after", HttpResponseError)],
)
def test_an_operation_whose_answer_is_lost_has_happened(
    http: requests.Session, world: World, operation: str, kind: str, error: type[AzureError]
) -> None:
    client, version = prepared(http)
    world.vault_fault(operation, kind, times=1)

    with pytest.raises(error):
        OPERATIONS[operation](client, version)

    assert written(world) == EFFECTS[operation]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("timeout_before", ServiceResponseError),
        ("down", ServiceRequestError),
        ("503", HttpResponseError),
        ("throttled", HttpResponseError),
        ("forbidden", HttpResponseError),
        ("disabled", HttpResponseError),
    ],
)
def test_an_operation_that_failed_before_its_effect_changed_nothing(
    http: requests.Session, world: World, operation: str, kind: str, error: type[AzureError]
) -> None:
    client, version = prepared(http)
    world.vault_fault(operation, kind, times=1)

    with pytest.raises(error):
        OPERATIONS[operation](client, version)

    assert written(world) == [("one", True)]
    OPERATIONS[operation](client, version)
    assert written(world) == EFFECTS[operation]


@pytest.mark.parametrize("failing", OPERATIONS)
def test_a_fault_of_one_operation_leaves_the_others_alone_until_healed(
    http: requests.Session, world: World, failing: str
) -> None:
    client, version = prepared(http)
    world.vault_fault(failing, "503")

    for operation in ("get", "set", "update"):
        if operation == failing:
            with pytest.raises(HttpResponseError):
                OPERATIONS[operation](client, version)
        else:
            OPERATIONS[operation](client, version)

    world.heal("vault")
    OPERATIONS[failing](client, version)


def test_a_counted_fault_waits_for_the_operation_itself(http: requests.Session, world: World) -> None:
    """A client that is new asks without token and body first; that must not use the fault up."""
    world.vault_fault("set", "timeout_after", times=1)

    with pytest.raises(ServiceResponseError):
        secret_client(http).set_secret(NAME, "one")

    assert written(world) == [("one", True)]


def test_a_fault_may_be_for_one_secret(http: requests.Session, world: World) -> None:
    client, _ = prepared(http)
    world.vault_fault("set", "503", secret="rt-two")

    assert client.set_secret(NAME, "two")
    with pytest.raises(HttpResponseError):
        client.set_secret("rt-two", "two")


def test_a_throttled_vault_says_when_to_come_again_and_the_client_does(http: requests.Session, world: World) -> None:
    client, _ = prepared(http)
    world.vault_fault("get", "throttled", retry_after=17)

    with pytest.raises(HttpResponseError) as refused:
        client.get_secret(NAME)

    assert refused.value.error
    assert refused.value.error.code == "Throttled"
    assert refused.value.response
    assert (refused.value.status_code, refused.value.response.headers["Retry-After"]) == (429, "17")
    world.heal("vault")
    world.vault_fault("get", "throttled", retry_after=0, times=1)
    assert client.get_secret(NAME, retry_total=1).value == "one"


@pytest.mark.parametrize(("kind", "inner"), [("forbidden", "ForbiddenByRbac"), ("disabled", "SecretDisabled")])
def test_two_kinds_of_403_differ_in_their_inner_code(
    http: requests.Session, world: World, kind: str, inner: str
) -> None:
    client, _ = prepared(http)
    world.vault_fault("get", kind)

    with pytest.raises(HttpResponseError) as refused:
        client.get_secret(NAME)

    assert refused.value.error
    assert (refused.value.status_code, refused.value.error.code) == (403, "Forbidden")
    assert refused.value.error.innererror == {"code": inner}


def test_a_vault_that_is_down_is_down_for_everybody(http: requests.Session, world: World) -> None:
    world.vault_fault(None, "down")

    with pytest.raises(requests.ConnectionError, match="refused"):
        http.get(f"{VAULT}/secrets/a/?api-version=7.5")


def test_impossible_faults_are_refused_when_they_are_asked_for(world: World) -> None:
    with pytest.raises(ValueError, match="knows no operation 'delete': get, set, update"):
        world.vault_fault("delete", "503")
    with pytest.raises(ValueError, match="knows no operation 'get'"):
        world.fail("graph", "503", operation="get")
    with pytest.raises(ValueError, match="knows no fault 'disabled'"):
        world.fail("entra", "disabled")


def test_vault_faults_by_scenario(http: requests.Session, world: World) -> None:
    client, _ = prepared(http)
    door = "http://localhost:8400/_sandbox/scenario"
    params = {"kind": "timeout-after", "operation": "set", "times": 1}

    told = http.post(door, json={"name": "vault-fault", "tenant": None, "params": params}).json()
    with pytest.raises(ServiceResponseError):
        client.set_secret(NAME, "two")

    assert written(world) == EFFECTS["set"]
    assert told["undo"] == "python -m sandbox scenario healthy"
    refused = http.post(door, json={"name": "vault-fault", "params": {"operation": "delete"}})
    assert (refused.status_code, "knows no operation" in refused.json()["error"]) == (400, True)
