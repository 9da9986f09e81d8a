"""docker-compose.yml and the Dockerfile, looked at without a container engine."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cpvpanel import messagebroker, signing
from sandbox import demo
from tests.house.test_settings import names_in_settings
from tests.pem import pair

COMPOSE: dict[str, Any] = YAML(typ="safe").load(Path("docker-compose.yml"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = Path("Dockerfile").read_text()
PER_PROCESS = {"KEY_VAULT_CLIENT_ID_WEB", "KEY_VAULT_CLIENT_ID_WORKER"}  # names of compose.env; settings.py has one
SECRET = re.compile(r"SECRET|PASSWORD|CERTIFICATE|TOKEN_KEYS|DATABASE_.*URL|BROKER_URL|EMAIL_URL|MESSAGE_KEY|AUDIT_KEY")
each = pytest.mark.parametrize("name", SERVICES)


def environment(name: str) -> dict[str, str]:
    return SERVICES[name].get("environment", {})


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


# --- docker-compose.yml ---------------------------------------------------------------------------------------------
def test_it_follows_the_compose_specification():
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.yml",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr


WORKERS = ("worker", "worker-control", "worker-now", "worker-mail")


def test_these_and_no_others():
    assert {"migrate", "web", "beat", "sandbox", *WORKERS} == OURS
    assert set(SERVICES) == OURS | {"postgres", "rabbitmq"}
    assert [name for name, service in SERVICES.items() if service.get("profiles")] == ["sandbox"]
    assert SERVICES["beat"]["deploy"]["replicas"] == 1


@each
def test_it_may_do_nothing_it_does_not_need(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


@each
def test_it_has_time_to_end_and_comes_back(name):
    assert seconds(SERVICES[name]["stop_grace_period"]) >= 30
    assert SERVICES[name]["restart"] == ("no" if name == "migrate" else "unless-stopped")


@each
def test_its_health_is_known(name):
    health = SERVICES[name]["healthcheck"]

    if name == "migrate":  # it ends; others wait for that
        assert health == {"disable": True}
    else:
        assert health["test"][0] == "CMD"
        assert seconds(health["timeout"]) <= seconds(health["interval"])
        assert {"retries", "start_period"} <= set(health)


@each
def test_its_image_is_pinned(name):
    tag = SERVICES[name]["image"].partition(":")[2]

    assert re.match(r"\d+\.\d+", tag)


@each
def test_its_settings_are_settings(name):
    known = names_in_settings() if name in OURS else {"POSTGRES_PASSWORD"}

    assert {variable.removesuffix("_FILE") for variable in environment(name)} <= known


@each
def test_what_is_secret_comes_as_a_file_that_is_given_to_it(name):
    given = {secret if isinstance(secret, str) else secret["source"] for secret in SERVICES[name].get("secrets", [])}

    assert given <= set(COMPOSE["secrets"])
    for variable, value in environment(name).items():
        if SECRET.search(variable):
            assert variable.endswith("_FILE"), variable
        if variable.endswith("_FILE"):
            assert value.removeprefix("/run/secrets/") in given, variable


def test_what_a_person_fills_in_is_a_setting():
    asked = set(re.findall(r"\$\{([A-Z_]+)", Path("docker-compose.yml").read_text()))

    assert asked <= names_in_settings() | PER_PROCESS
    assert not {variable for variable in asked if SECRET.search(variable)}


def test_each_queue_has_a_worker_and_no_flood_of_work_reaches_the_urgent_ones():
    def queues(name: str) -> set[str]:
        command = SERVICES[name]["command"]
        return set(command[command.index("--queues") + 1].split(","))

    assert [queues(name) for name in WORKERS] == [{queue} for queue in messagebroker.QUEUES]
    for name in WORKERS:
        assert SERVICES[name]["environment"] == SERVICES["worker"]["environment"]


def test_web_and_worker_are_different_people_at_the_vault():
    web, worker = SERVICES["web"], SERVICES["worker"]

    for variable in ("CPV_ROLE", "KEY_VAULT_CLIENT_ID", "KEY_VAULT_CERTIFICATE_FILE", "KEY_VAULT_CLIENT_SECRET_FILE"):
        assert environment("web")[variable] != environment("worker")[variable]
    assert not {secret for secret in set(web["secrets"]) & set(worker["secrets"]) if "vault" in secret}
    for name in ("migrate", "beat"):
        assert not [secret for secret in SERVICES[name]["secrets"] if "vault" in secret or "app_" in secret]


def test_only_migrations_have_the_owners_login():
    assert [name for name in OURS if "DATABASE_OWNER_URL_FILE" in environment(name)] == ["migrate"]


def test_nobody_starts_before_what_it_needs():
    healthy, done = {"condition": "service_healthy"}, {"condition": "service_completed_successfully"}

    assert SERVICES["migrate"]["depends_on"] == {"postgres": healthy}
    for name in ("web", "worker", "beat"):
        assert SERVICES[name]["depends_on"] == {"postgres": healthy, "rabbitmq": healthy, "migrate": done}


@each
def test_nothing_listens_to_the_outside(name):
    ports = SERVICES[name].get("ports", [])

    assert all(port.startswith("127.0.0.1:") for port in ports)
    if name not in ("web", "sandbox"):
        assert not ports


def test_database_and_message_broker_are_reached_from_inside_only():
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("postgres", "rabbitmq", "migrate", "beat"):
        assert SERVICES[name]["networks"] == ["inside"], name


def test_data_outlives_its_container():
    assert SERVICES["postgres"]["volumes"][0] == "postgres:/var/lib/postgresql"
    named = {str(volume).partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {volume for volume in named if not volume.startswith(".")} == set(COMPOSE["volumes"])


# --- The image ------------------------------------------------------------------------------------------------------
def test_the_image_is_pinned_hash_locked_and_runs_as_nobody():
    stages = DOCKERFILE.split("\nFROM ")

    assert len(stages) == 3
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert "--require-hashes" in stages[1]
    assert "pip uninstall" in stages[2]
    assert not re.search(r"apt-get|gcc|build-essential|git ", DOCKERFILE)
    user = re.search(r"^USER (\S+)$", stages[2], re.MULTILINE)
    assert user
    assert {SERVICES[name]["user"] for name in OURS} == {user[1]}
    assert not re.search(r"^(ARG|ENV) .*(KEY|SECRET|PASSWORD|TOKEN)", DOCKERFILE, re.MULTILINE)


def test_static_files_are_collected_with_the_words_of_the_dockerfile(tmp_path):
    found = re.search(r"^RUN (DEBUG=.*?collectstatic.*?) \\?$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found
    words = shlex.split(found[1].replace("\\\n", ""))
    given = dict(word.split("=", 1) for word in words[: words.index("/opt/venv/bin/python")])
    assert set(given) <= names_in_settings() | {"CPV_ENV_FILE"}
    env = {"PATH": os.environ["PATH"]} | given | {"CPV_VAR_DIR": str(tmp_path)}
    command = [sys.executable, *words[words.index("/opt/venv/bin/python") + 1 :], "--dry-run"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_image_holds_nothing_of_this_machine():
    ignored = Path(".dockerignore").read_text().splitlines()

    assert {"var", ".venv", ".git", ".env", "secrets", "**/*.pem", "tests"} <= set(ignored)
    assert "/secrets/" in Path(".gitignore").read_text().splitlines()


# --- The secrets ----------------------------------------------------------------------------------------------------
@pytest.fixture
def write(tmp_path):
    written = runpy.run_path("scripts/container_secrets.py")["write"]
    return lambda **options: written(tmp_path / "secrets", **options)


@pytest.mark.parametrize("rehearsal", [False, True])
def test_every_secret_is_made_once_and_fits(write, tmp_path, rehearsal):
    made = write(rehearsal=rehearsal)
    before = {name: (tmp_path / "secrets" / name).read_text() for name in made}
    again = write(rehearsal=rehearsal)

    assert set(made) == {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} | {"compose.env"}
    assert again == []
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert before["database_app_password"] in before["database_url"]
    assert before["database_owner_password"] in before["database_owner_url"]
    assert before["database_owner_password"] not in before["database_url"]
    several_lines = {"rabbitmq_conf", "compose.env", "message_key", "message_cert"}
    assert {name for name, text in before.items() if "\n" in text} == several_lines
    certificate = before["message_cert"]
    signing.use(key=before["message_key"], certificate=certificate, trusted=certificate)  # they belong together
    needed = set(re.findall(r"\$\{([A-Z_]+):\?", Path("docker-compose.yml").read_text()))
    assert needed <= set(re.findall(r"^([A-Z_]+)=", before["compose.env"], re.MULTILINE))


def test_a_rehearsal_knows_what_the_stand_in_knows(write, tmp_path):
    write(rehearsal=True)
    words = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    assert words["app_secret"] == demo.APP_SECRET
    assert words["vault_web_secret"] == demo.VAULT_WEB_CLIENT_SECRET
    assert words["vault_worker_secret"] == demo.VAULT_WORKER_CLIENT_SECRET
    for known in (
        demo.VENDOR_TENANT_ID, demo.APP_ID, demo.VAULT_URL, demo.VAULT_WEB_CLIENT_ID, demo.VAULT_WORKER_CLIENT_ID
    ):  # fmt: skip
        assert known in words["compose.env"]


# --- Together -------------------------------------------------------------------------------------------------------
FILLED_IN = {
    "CPV_BASE_URL": "https://panel.cpv-example.com",
    "ALLOWED_HOSTS": "panel.cpv-example.com",
    "CPV_TENANT_ID": "0d5a7c9e-4b1f-4c63-9a2e-71c0de000001",
    "CPV_APP_ID": "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000a1",
    "KEY_VAULT_URL": "https://cpv-example.vault.azure.net",
    "KEY_VAULT_CLIENT_ID_WEB": "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b1",
    "KEY_VAULT_CLIENT_ID_WORKER": "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b2",
}


def resolved(name: str, given: dict[str, str], secrets: Path) -> dict[str, str]:
    """The environment of a service as an engine would make it, with the secrets where they lie on this machine."""

    def value(found: re.Match[str]) -> str:
        variable, default = found[1], found[2] or ""
        return given.get(variable) or default.removeprefix(":-")

    whole = {key: re.sub(r"\$\{([A-Z_]+)(:-[^}]*|:\?[^}]*)?\}", value, text) for key, text in environment(name).items()}
    return {key: text.replace("/run/secrets", str(secrets)) for key, text in whole.items()}


@pytest.mark.parametrize("name", ["web", "worker", "beat", "migrate"])
@pytest.mark.parametrize("rehearsal", [False, True])
def test_each_process_starts_with_what_it_is_given(write, tmp_path, name, rehearsal):
    write(rehearsal=rehearsal)
    secrets = tmp_path / "secrets"
    given = dict(re.findall(r"^([A-Z_]+)=(.*)$", (secrets / "compose.env").read_text(), re.MULTILINE))
    if not rehearsal:
        given |= FILLED_IN
        for certificate in ("app_certificate", "vault_web_certificate", "vault_worker_certificate"):
            made = pair(certificate, days=60)
            (secrets / certificate).write_text(made.key + made.certificate)
    env = {"PATH": os.environ["PATH"], "CPV_ENV_FILE": "", "CPV_VAR_DIR": str(tmp_path / "var")}
    env |= resolved(name, given, secrets)
    checks = name in ("web", "worker")  # the two that speak to Microsoft
    command = ["check", "--deploy", "--fail-level", "ERROR"] if checks else ["check", "--list-tags"]
    done = subprocess.run([sys.executable, "manage.py", *command], env=env, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
