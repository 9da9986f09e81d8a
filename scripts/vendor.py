"""
Copy the front end's vendored files out of their npm packages, as static/vendor/vendor.lock.json lists them.

To move to another version: change `version` and `integrity` there (`npm view <name>@<version> dist.integrity`), run
`python scripts/vendor.py`, change the folder's name in the templates, and delete the old folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "static" / "vendor"
LOCK = VENDOR / "vendor.lock.json"
SOURCE_MAP = re.compile(rb"/\*# sourceMappingURL=[^*]*\*/\s*\Z")  # of a map we do not ship: collectstatic would fail


def fetch(name: str, version: str, integrity: str) -> dict[str, bytes]:
    """Every file of one package, by its path inside it, after its sha512 was compared with the lock's."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", f"{name}@{version}", "--ignore-scripts", "--silent"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own lock's words
        (package,) = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if found != integrity:
            sys.exit(f"{name}@{version} is {found}, but the lock says {integrity}. Nothing was copied.")
        with tarfile.open(package) as files:
            members = {member.name.removeprefix("package/"): files.extractfile(member) for member in files}
            return {path: opened.read() for path, opened in members.items() if opened}


def main() -> None:
    lock = json.loads(LOCK.read_text())
    for name, entry in lock.items():
        package = fetch(name, entry["version"], entry["integrity"])
        folder = VENDOR / f"{name}-{entry['version']}"
        folder.mkdir(exist_ok=True)
        for path in entry["files"]:
            content = SOURCE_MAP.sub(b"", package[path])
            (folder / Path(path).name).write_bytes(content)
            entry["files"][path] = "sha256-" + base64.b64encode(hashlib.sha256(content).digest()).decode()
    LOCK.write_text(json.dumps(lock, indent=2) + "\n")


if __name__ == "__main__":
    main()
