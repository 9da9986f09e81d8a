"""Memory is what bounds how many workers a machine has: none of them holds the pages that people see."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.live import ROOT

HOLDS = """
import sys
import django
django.setup()
from cpvpanel.celery import app
app.loader.import_default_modules()
assert "partners.dispatch" in app.tasks
print(*[name for name in sys.argv[1:] if name in sys.modules])
"""


def test_a_worker_holds_neither_the_desk_nor_the_portal() -> None:
    pages = ["cpvpanel.urls", "cpvpanel.desk", "partners.admin", "partners.views", "consent.views", "limits"]
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "cpvpanel.settings", "DEBUG": "true", "CPV_ROLE": "worker"}

    ended = subprocess.run(
        [sys.executable, "-c", HOLDS, *pages], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )

    assert ended.stdout.split() == []


def test_a_worker_does_not_start_on_settings_that_are_wrong() -> None:
    env = os.environ | {"DEBUG": "true", "CPV_ROLE": "worker", "CPV_STAFF_CONTEXT": "c100"}
    worker = [sys.executable, "-m", "celery", "-A", "cpvpanel", "worker", "--pool", "threads"]

    ended = subprocess.run(worker, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert "CPV_STAFF_CONTEXT is 'c100'" in ended.stderr
