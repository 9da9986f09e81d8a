import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandParser, call_command
from django.db import connections

from cpvpanel.supervisor import Child, StartFailed, Supervisor, http_status, port_is_free, taken_port


class Command(BaseCommand):
    help = "Start everything on embedded defaults for a first look; Ctrl-C ends it."
    requires_system_checks = ()  # they run once it is clear that this may run at all

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--no-seed", action="store_true", help="start without the pretended partners")
        parser.add_argument("--once", action="store_true", help="stop as soon as everything has started")

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()

    def refuse(self, line: str) -> None:
        self.stderr.write(line)
        sys.exit(2)

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            self.refuse(
                "runlocal is for a first look and needs DEBUG=true; docs/operations.md says how to run for real."
            )
        own_stand_in = self.needs_stand_in()
        self.check_ports(own_stand_in)
        self.check()
        with Supervisor(logs=settings.VAR_DIR / "log", say=self.say, cwd=settings.BASE_DIR) as everything:
            try:
                self.start(everything, own_stand_in=own_stand_in, seed=not options["no_seed"])
            except StartFailed as error:
                self.stderr.write(str(error))
                sys.exit(1)
            if not options["once"]:
                everything.watch()

    def needs_stand_in(self) -> bool:
        """Whether we start our own; not when CPV_SANDBOX_URL names one that already answers."""
        given = os.environ.get("CPV_SANDBOX_URL", "").rstrip("/")
        if given and http_status(given) is not None:
            return False
        if given not in ("", f"http://localhost:{settings.CPV_SANDBOX_PORT}"):
            self.refuse(
                f"CPV_SANDBOX_URL is {given}, where nothing answers. Start that stand-in, or unset the variable."
            )
        return True

    def check_ports(self, own_stand_in: bool) -> None:
        if not port_is_free(settings.CPV_PORT):
            self.refuse(taken_port(settings.CPV_PORT, "CPV_PORT"))
        if own_stand_in and not port_is_free(settings.CPV_SANDBOX_PORT):
            self.refuse(taken_port(settings.CPV_SANDBOX_PORT, "CPV_SANDBOX_PORT"))

    def start(self, everything: Supervisor, *, own_stand_in: bool, seed: bool) -> None:
        """Start in the order of need; what to try is printed last."""
        if own_stand_in:
            everything.start(stand_in())
            everything.wait_for("stand-in", lambda: http_status(settings.CPV_SANDBOX_URL) is not None)
        everything.call(lambda: call_command("migrate", interactive=False, verbosity=0))
        lines = everything.call(self.seeder()) if seed else []
        connections.close_all()
        for child in product():
            everything.start(child)
        healthz = f"http://127.0.0.1:{settings.CPV_PORT}/healthz"
        everything.wait_for("web", lambda: http_status(healthz) == 200)
        for line in ["", f"CPV Panel runs at {settings.CPV_BASE_URL} (Ctrl-C ends everything)", *lines]:
            self.say(line)

    def seeder(self) -> Callable[[], list[str]]:
        from cpvpanel import demo

        return lambda: demo.seed(base_url=settings.CPV_BASE_URL, sandbox_url=settings.CPV_SANDBOX_URL, say=self.say)


def stand_in() -> Child:
    """The pretended Microsoft cloud."""
    where = ["--port", str(settings.CPV_SANDBOX_PORT), "--public-url", settings.CPV_SANDBOX_PUBLIC_URL]
    state = ["--state", str(settings.VAR_DIR / "sandbox")]
    return Child("stand-in", [sys.executable, "-m", "sandbox", "serve", *where, *state])


def product() -> Iterator[Child]:
    """The portal, the workers and their clock."""
    run = settings.VAR_DIR / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    env = {"DEBUG": "true", "CPV_SANDBOX_URL": settings.CPV_SANDBOX_URL, "CPV_PORT": str(settings.CPV_PORT)}
    gunicorn = [sys.executable, "-m", "gunicorn", "cpvpanel.wsgi:application"]
    yield Child("web", [*gunicorn, "--bind", f"127.0.0.1:{settings.CPV_PORT}"], {**env, "CPV_ROLE": "web"})

    celery = [sys.executable, "-m", "celery", "-A", "cpvpanel"]
    quiet = ["--without-mingle", "--without-gossip", "-l", "INFO"]
    workers = {"worker": "work", "worker-control": "control", "worker-now": "interactive", "worker-mail": "mail"}
    for name, queue in workers.items():
        worker = ["worker", "--pool", "threads", "-c", "4", "-Q", queue, "-n", f"{name}@%h"]
        yield Child(name, [*celery, *worker, *quiet], {**env, "CPV_ROLE": "worker"})
    yield Child(
        "beat", [*celery, "beat", "-s", str(run / "beat-schedule"), "--pidfile="], {**env, "CPV_ROLE": "worker"}
    )
