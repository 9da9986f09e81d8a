"""What a bench stands on: a stand-in, an empty database and the environment that leads fresh processes to both."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import requests
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.clock import WATCHED
from bench.standin import TLS, TLS_URL
from bench.walled import Walled, a_walled_database
from sandbox import demo

ROOT = Path(__file__).resolve().parents[1]
POSTGRES = "CPV_BENCH_POSTGRES_URL"
DLT = ROOT / ".venv-bench" / "bin" / "python"  # what `make bench` installs it into
DLTS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "DESTINATION__POSTGRES__CREDENTIALS__PASSWORD": "any",  # it wants one where the address has none
}
OURS = ("COV", "CPV_", "KEY_VAULT_", "DATABASE_", "CELERY_", "EMAIL_", "DJANGO_", "CACHE_URL", "SECRET_KEY", "DEBUG")


class Broken(Exception):
    """A process of the bench ended badly; the message is the end of what it said."""


@dataclass(frozen=True)
class Ground:
    """Where fresh processes measure."""

    env: dict[str, str]
    database: str  # what a person calls it
    superuser_url: str = ""  # whom no policy binds; empty on SQLite

    def without_walls(self) -> Ground:
        """The same database by a login that no policy binds."""
        return replace(self, env=self.env | {"DATABASE_URL": self.superuser_url, "CPV_BENCH_OPEN": "1"})

    def measure(self, name: str, **options: Any) -> Any:
        """What a function of a fresh process returns: `bench.inside.<name>`, or `<module>.<name>` of the bench's."""
        module, _, function = name.rpartition(".")
        command = [sys.executable, "-m", f"bench.{module or 'inside'}", function, json.dumps(options)]
        if module == "peer_dlt":
            command = [str(DLT), "-m", "bench.peer_dlt", json.dumps(options)]
        ended = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise Broken(f"{name} {options}: {ended.stderr[-2000:]}")
        return json.loads(ended.stdout)

    def tell(self, what: str, **given: Any) -> Any:
        """Have the stand-in show a list in some way ("list"), or take its time ("latency")."""
        answer = requests.post(f"{self.env['CPV_SANDBOX_URL']}/_bench/{what}", json=given, timeout=600)
        answer.raise_for_status()
        return answer.json()


@contextmanager
def ground(partners: dict[str, int]) -> Iterator[Ground]:
    """A stand-in with these partners (tenant id → number of customers) and a migrated database; both end with us."""
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="cpv-bench-")))
        tls = folder / "tls.pem"
        tls.write_text(a_certificate())
        stand_in, over_tls = ends.enter_context(_stand_in(partners, tls))
        made = ends.enter_context(_database(folder))
        url, owner_url = made.login_url, made.owner_url
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        env |= environment(folder, stand_in, url) | {TLS: str(tls), TLS_URL: over_tls, "DATABASE_OWNER_URL": owner_url}
        env |= {WATCHED: made.superuser_url} | DLTS
        _migrate(env)
        yield Ground(env, "PostgreSQL" if url.startswith("postgres") else "SQLite", made.superuser_url)


def _migrate(env: dict[str, str]) -> None:
    command = [sys.executable, "manage.py", "migrate", "--no-input", "--skip-checks", "--verbosity", "0"]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise Broken(f"migrate: {ended.stderr[-2000:]}")


def environment(folder: Path, stand_in: str, database: str) -> dict[str, str]:
    """A rehearsal: production's ways, the stand-in's ids, secrets worth nothing."""
    return {
        "DJANGO_SETTINGS_MODULE": "bench.settings",
        "DEBUG": "false",
        "CPV_REHEARSAL": "true",
        "CPV_ENV_FILE": os.devnull,
        "CPV_VAR_DIR": str(folder / "var"),
        "CPV_ROLE": "worker",
        "CPV_BASE_URL": "http://localhost",
        "ALLOWED_HOSTS": "testserver",
        "SECRET_KEY": "a-secret-key-for-benches-only-0123456789-0123456789",
        "DATABASE_URL": database,
        "CELERY_BROKER_URL": "filequeue://",
        "CPV_CALLS_PER_PARTNER": "100000",  # a second: what is measured is not our own patience
        "CPV_CALLS_PER_SECOND": "100000",
        "CPV_TOKENS_PER_SECOND": "1000",
        "CPV_SANDBOX_URL": stand_in,
        "CPV_TENANT_ID": demo.VENDOR_TENANT_ID,
        "CPV_APP_ID": demo.APP_ID,
        "CPV_APP_SECRET": demo.APP_SECRET,
        "KEY_VAULT_URL": demo.VAULT_URL,
        "KEY_VAULT_TENANT_ID": demo.VENDOR_TENANT_ID,
        "KEY_VAULT_CLIENT_ID": demo.VAULT_WORKER_CLIENT_ID,
        "KEY_VAULT_CLIENT_SECRET": demo.VAULT_WORKER_CLIENT_SECRET,
        "CPV_TOKEN_KEYS": "bench=" + base64.b64encode(bytes(32)).decode(),
    }


def a_certificate() -> str:
    """A key and its certificate of a day, as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    made = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), now, now + dt.timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (plain + made.sign(key, SHA256()).public_bytes(Encoding.PEM)).decode()


@contextmanager
def _stand_in(partners: dict[str, int], tls: Path) -> Iterator[tuple[str, str]]:
    """Its address, and its address over TLS."""
    command = [sys.executable, "-m", "bench.standin", json.dumps(partners)]
    env = os.environ | {TLS: str(tls)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            ports = process.stdout.readline().split() if process.stdout else []
            if not ports:
                raise Broken("The stand-in did not start; what it said stands above.")
            yield f"http://localhost:{ports[0]}", f"https://localhost:{ports[1]}"
        finally:
            process.terminate()


@contextmanager
def _database(folder: Path) -> Iterator[Walled]:
    """A new database on the server that the environment names, or SQLite in the folder, which knows no owners."""
    server = os.environ.get(POSTGRES, "")
    if not server:
        yield Walled(f"sqlite:///{folder / 'bench.sqlite3'}", "", "")
        return
    try:
        psycopg.connect(server).close()
    except psycopg.Error as error:
        raise Broken(f"{POSTGRES}: {error}") from error
    with a_walled_database(server) as made:
        yield made
