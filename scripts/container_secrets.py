"""
Make the folder secrets/ for docker-compose.yml, once: `python3 scripts/container_secrets.py [--rehearsal]`.

Needs Python and openssl. A file that is there already stays as it is. Certificates and ids are for a person to fill in;
with --rehearsal they are those of the stand-in, worth nothing.
"""

import argparse
import base64
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "secrets"
REHEARSAL = {
    "app_secret": "pretended-app-secret",
    "vault_web_secret": "pretended-vault-web-secret",
    "vault_worker_secret": "pretended-vault-worker-secret",
}
SETTINGS = """\
# Read by `docker compose --env-file secrets/compose.env`; nothing here is secret. docs/operations.md explains each.
CPV_BASE_URL=
ALLOWED_HOSTS=
CPV_TENANT_ID=
CPV_APP_ID=
KEY_VAULT_URL=
KEY_VAULT_CLIENT_ID_WEB=
KEY_VAULT_CLIENT_ID_WORKER=
"""
REHEARSAL_SETTINGS = """\
# A rehearsal against the stand-in on this machine.
COMPOSE_PROFILES=sandbox
CPV_REHEARSAL=true
CPV_BASE_URL=http://localhost:8000
ALLOWED_HOSTS=localhost
CPV_SANDBOX_URL=http://sandbox:8400
CPV_SANDBOX_PUBLIC_URL=http://localhost:8400
CPV_TENANT_ID=0d5a7c9e-4b1f-4c63-9a2e-71c0de000001
CPV_APP_ID=0d5a7c9e-4b1f-4c63-9a2e-71c0de0000a1
KEY_VAULT_URL=https://cpv-demo.vault.azure.net
KEY_VAULT_TENANT_ID=0d5a7c9e-4b1f-4c63-9a2e-71c0de000001
KEY_VAULT_CLIENT_ID_WEB=0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b1
KEY_VAULT_CLIENT_ID_WORKER=0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b2
"""


def signing_pair() -> tuple[str, str]:
    """An RSA key and a certificate of 400 days, as PEM: what web and beat tell workers is signed."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = Path(folder, "key.pem"), Path(folder, "cert.pem")
        made = ["-newkey", "rsa:3072", "-nodes", "-days", "400", "-subj", "/CN=cpv-messages"]
        where = ["-keyout", str(key), "-out", str(certificate)]
        command = ["openssl", "req", "-x509", *made, *where]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed words
        return key.read_text(), certificate.read_text()


def files(*, rehearsal: bool) -> dict[str, str]:
    """Every file and what it holds. No line ends: a settings file is read as it is."""
    message_key, message_cert = signing_pair()
    owner, app, messages = (secrets.token_hex(24) for _ in range(3))
    by_hand = dict.fromkeys(
        ["app_certificate", "vault_web_certificate", "vault_worker_certificate", *REHEARSAL],
        "",
    )
    return {
        "postgres_password": secrets.token_hex(24),
        "database_owner_password": owner,
        "database_app_password": app,
        "database_owner_url": f"postgres://cpv_owner:{owner}@postgres:5432/cpv",
        "database_url": f"postgres://cpv_app:{app}@postgres:5432/cpv",
        "rabbitmq_conf": f"default_user = cpv\ndefault_pass = {messages}\n",
        "broker_url": f"amqp://cpv:{messages}@rabbitmq:5672//",
        "message_key": message_key,
        "message_cert": message_cert,
        "secret_key": secrets.token_urlsafe(64),
        "token_keys": "k1=" + base64.b64encode(secrets.token_bytes(32)).decode(),
        "audit_key": secrets.token_urlsafe(48),
        "email_url": "consolemail://",
        "compose.env": REHEARSAL_SETTINGS if rehearsal else SETTINGS,
        **by_hand,
        **(REHEARSAL if rehearsal else {}),
    }


def write(folder: Path, *, rehearsal: bool) -> list[str]:
    """
    Write what is missing; returns the names. All or nothing: passwords and addresses belong together.

    The folder shuts out other people of this machine. The files do not: containers read them as users of their own.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if any(folder.iterdir()):
        return []
    made = files(rehearsal=rehearsal)
    for name, text in made.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    return sorted(made)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0] if __doc__ else None)
    parser.add_argument("--rehearsal", action="store_true", help="with the stand-in's ids and secrets")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    if not shutil.which("openssl"):
        sys.stderr.write("openssl is missing; it makes the key that messages are signed with.\n")
        return 2
    if not write(options.folder, rehearsal=options.rehearsal):
        sys.stderr.write(f"{options.folder} holds something already; nothing was changed.\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
