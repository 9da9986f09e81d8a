"""How a process of ours begins."""

from __future__ import annotations

import json
import subprocess
import sys

LOOK = """
import gc, json, django
django.setup()
print(json.dumps(gc.isenabled()))
"""


def test_once_the_application_stands_a_process_looks_for_garbage():
    ended = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) is True
