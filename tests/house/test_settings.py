"""Settings, .env.example and docs/operations.md say the same, and bad combinations are named at the start."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import run_checks

from bench.ground import environment
from tests.live import OURS
from tests.pem import pair

SUFFIX = "{suffix}"


def names_in_settings() -> set[str]:
    """Every name that settings.py reads from the environment; those per cloud without their suffix."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path("cpvpanel/settings.py").read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = ast.unparse(node.func)
        if not (called.startswith("env.") or called in ("database", "os.environ.get")):
            continue
        name = ast.unparse(node.args[0]).lstrip("f").strip("'\"").replace(SUFFIX, "")
        if re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
            names.add(name)
    return names - {"CPV_ENV_FILE"}


def names_in(path: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, Path(path).read_text(), re.MULTILINE))


def test_the_example_names_every_setting_and_no_other():
    assert names_in(".env.example", r"^#? ?([A-Z][A-Z0-9_]+)=") == names_in_settings()


def test_the_operators_page_names_every_setting_and_no_other():
    named = names_in("docs/operations.md", r"^\| `([A-Z][A-Z0-9_]+)`")

    assert named == names_in_settings() | {"CPV_ENV_FILE"}


def test_outside_development_nothing_secret_has_a_default():
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CPV_", "KEY_", "DEBUG"))}
    env |= {"CPV_ENV_FILE": "", "DEBUG": "false"}
    for name in ("SECRET_KEY", "CPV_BASE_URL", "DATABASE_URL", "CPV_ROLE", "CPV_TOKEN_KEYS", "CELERY_BROKER_URL"):
        env.pop(name, None)
        done = subprocess.run(
            [sys.executable, "-c", "import cpvpanel.settings"], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert f"Set the {name} environment variable" in done.stderr, name
        env[name] = "sqlite://:memory:" if name == "DATABASE_URL" else "set"


def test_migrations_use_the_owners_login_also_when_it_comes_as_a_file(tmp_path):
    (tmp_path / "owner").write_text("postgres://cpv_owner:x@db/cpv")
    env = os.environ | {"DEBUG": "true", "CPV_ENV_FILE": "", "CPV_VAR_DIR": str(tmp_path / "var")}
    env |= {"DATABASE_URL": "postgres://cpv_app:x@db/cpv", "DATABASE_OWNER_URL_FILE": str(tmp_path / "owner")}
    look = "import sys; sys.argv = ['manage.py', *sys.argv[1:]]; from cpvpanel import settings as s; "
    look += "print(s.DATABASES['default']['USER'])"
    for command, login in (("migrate", "cpv_owner"), ("check", "cpv_app")):
        done = subprocess.run(
            [sys.executable, "-c", look, command], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == login


def rehearsal(folder: Path, **changes: str) -> dict[str, str]:
    """A whole environment of a rehearsal behind https, with this test's changes; "" takes a name out."""
    clean = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    settled = clean | environment(folder, "http://localhost:8400", "postgres://cpv@db.test/cpv")
    settled |= {"DJANGO_SETTINGS_MODULE": "cpvpanel.settings", "CPV_BASE_URL": "https://panel.test"}
    settled |= {"ALLOWED_HOSTS": "panel.test", "CELERY_BROKER_URL": "amqps://mq.test/cpv"} | changes
    return {name: value for name, value in settled.items() if value}


def done(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)


def test_a_rehearsal_is_as_clean_as_a_production(tmp_path):
    checked = done(["manage.py", "check", "--deploy", "--fail-level", "WARNING"], rehearsal(tmp_path))

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"DATABASE_URL": "sqlite://:memory:"}, "tokens.E014"),
        ({"CELERY_BROKER_URL": "filequeue://"}, "tokens.E015"),
        ({"CPV_BASE_URL": "https://panel.example.com"}, "tokens.E008"),
        ({"CPV_REHEARSAL": ""}, "tokens.E007"),
    ],
)
def test_neither_portal_nor_command_starts_on_settings_that_are_unsafe(tmp_path, changes, finding):
    env = rehearsal(tmp_path, **changes)

    portal, command = done(["-c", "import cpvpanel.wsgi"], env), done(["manage.py", "partners"], env)

    assert portal.returncode != 0
    assert finding in portal.stderr
    assert command.returncode != 0
    assert finding in command.stderr


SIGNED = pair("cpv", days=400)
GOOD = SIGNED.key + SIGNED.certificate
BASE = {
    "DEBUG": False,
    "CPV_SANDBOX_URL": "",
    "CPV_APPS": {
        "global": {"app_id": "a", "secret": "", "certificate": GOOD, "next_certificate": "", "federated": False},
        "china": {"app_id": "", "secret": "", "certificate": "", "next_certificate": "", "federated": False},
    },
    "CPV_VAULTS": {"global": {"url": "https://v.vault.azure.net", "client_id": "b", "secret": ""}},
    "CPV_DATABASE_EMBEDDED": False,
    "CELERY_BROKER_URL": "amqps://mq.example/cpv",
    "CPV_MESSAGES_SIGNED": True,
}


def found(settings, *, deploy: bool = False, **changes: object) -> set[str]:
    for name, value in (BASE | changes).items():
        setattr(settings, name, value)
    messages = run_checks(include_deployment_checks=deploy)
    return {message.id for message in messages if message.id and message.id.startswith("tokens.E")}


def app(**changes: object) -> dict[str, object]:
    return BASE["CPV_APPS"] | {"global": BASE["CPV_APPS"]["global"] | changes}


def vault(**changes: object) -> dict[str, object]:
    return {"global": BASE["CPV_VAULTS"]["global"] | changes}


def test_good_settings_raise_no_finding(settings):
    assert found(settings) == set()


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"CPV_TOKEN_KEYS": "k1=short"}, "tokens.E001"),
        ({"CPV_ROLE": "boss"}, "tokens.E002"),
        ({"CPV_PERMISSIONS": "everything"}, "tokens.E003"),
        ({"CPV_CONSENT_ROLES": []}, "tokens.E004"),
        ({"CPV_CONSENT_ROLES": ["helpdesk_agent"]}, "tokens.E004"),
        ({"CPV_REFRESH_STORE_INTERVAL": -1}, "tokens.E005"),
        ({"CPV_REFRESH_STORE_INTERVAL": 90 * 86_400}, "tokens.E005"),
        ({"CPV_RESPONSE_MODE": "fragment"}, "tokens.E013"),
        ({"CPV_APPS": app(app_id="")}, "tokens.E006"),
        ({"CPV_SANDBOX_URL": "http://localhost:8400"}, "tokens.E007"),
        (
            {"CPV_SANDBOX_URL": "http://x", "CPV_REHEARSAL": True, "CPV_BASE_URL": "https://panel.example"},
            "tokens.E008",
        ),
        ({"CPV_VAULTS": vault(url="")}, "tokens.E009"),
        ({"CPV_VAULTS": vault(client_id="a")}, "tokens.E010"),
        ({"CPV_APPS": app(secret="s")}, "tokens.E011"),
        ({"CPV_VAULTS": vault(secret="s")}, "tokens.E011"),
        ({"CPV_APPS": app(certificate="")}, "tokens.E012"),
        ({"CPV_APPS": app(certificate="pem")}, "tokens.E019"),
        ({"CPV_APPS": app(next_certificate=GOOD.split("-----BEGIN CERT")[0])}, "tokens.E019"),
        ({"CPV_APPS": app(secret="", certificate="", federated=False, next_certificate=GOOD)}, "tokens.E020"),
        ({"CPV_VAULTS": vault(certificate="pem")}, "tokens.E019"),
        ({"CPV_VAULTS": vault(url="https://v.vault.azure.cn")}, "tokens.E021"),
        ({"CPV_DATABASE_EMBEDDED": True}, "tokens.E014"),
        ({"CELERY_BROKER_URL": "filequeue://"}, "tokens.E015"),
        ({"CELERY_BROKER_URL": "memory://"}, "tokens.E015"),
        ({"CPV_MESSAGES_SIGNED": False}, "tokens.E016"),
        ({"CPV_TURN_SECONDS": 0}, "tokens.E018"),
        ({"CPV_FAULTPOINT": "after put"}, "tokens.E022"),
        ({"CPV_FAULTPOINT": "nowhere", "CPV_REHEARSAL": True}, "tokens.E023"),
        ({"CPV_AUDIT_KEY": "short"}, "tokens.E024"),
        ({"CPV_LIST_GROWTH": 499}, "tokens.E025"),
    ],
)
def test_a_bad_combination_is_named(settings, changes, finding):
    assert found(settings, **changes) == {finding}


def test_in_development_secrets_and_the_stand_in_are_fine(settings):
    changes = {"CPV_SANDBOX_URL": "http://x", "CPV_DATABASE_EMBEDDED": True, "CPV_MESSAGES_SIGNED": False}
    changes |= {"CELERY_BROKER_URL": "filequeue://", "CPV_APPS": app(secret="s", certificate="")}

    assert found(settings, DEBUG=True, **changes) == set()


def test_a_deployment_is_never_in_development(settings):
    assert found(settings, DEBUG=True) == set()
    assert found(settings, deploy=True, DEBUG=True) == {"tokens.E017"}
    assert found(settings, deploy=True) == set()


def test_a_rehearsal_on_this_machine_may_use_the_stand_in_and_secrets_and_need_not_sign(settings):
    changes = {"CPV_SANDBOX_URL": "http://x", "CPV_REHEARSAL": True, "CPV_BASE_URL": "https://panel.test"}
    changes |= {"CPV_MESSAGES_SIGNED": False}

    assert found(settings, **changes, CPV_APPS=app(secret="s", certificate="")) == set()
