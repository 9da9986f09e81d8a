"""A process with the product's settings that runs one script after another: a new one for each takes two seconds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

SERVE = """
import contextlib, io, json, sys, traceback
from django.db import connections
from tokens import tenancy
for line in sys.stdin:
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), tenancy.{opens}:
        try:
            exec(json.loads(line), {{}})
        except Exception:
            code = 1
            traceback.print_exc(file=said)
    connections.close_all()
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


class Scripts:
    """`manage.py shell` in some environment; what it says of its own goes to a file."""

    def __init__(self, command: list[str], *, env: dict[str, str], opens: str, errors: Path) -> None:
        words = ["shell", "--no-imports", "-c", SERVE.format(opens=opens)]
        with open(errors, "ab") as file:
            self.process = subprocess.Popen(
                [*command, *words], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )

    def run(self, code: str) -> Any:
        """What the script printed, as JSON; a script that breaks fails the test."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the process for scripts ended: {self.process.wait()}"
        failed, said = json.loads(answer)
        assert not failed, said
        return json.loads(said or "null")

    def end(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
