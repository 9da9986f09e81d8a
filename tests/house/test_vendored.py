"""The files of others that we ship are the ones their authors published."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

VENDOR = Path(__file__).resolve().parents[2] / "static" / "vendor"
LOCK = json.loads((VENDOR / "vendor.lock.json").read_text())
FILES = {
    VENDOR / f"{name}-{entry['version']}" / Path(path).name: digest
    for name, entry in LOCK.items()
    for path, digest in entry["files"].items()
}
HOW = "run `python scripts/vendor.py`, which copies the files again from the packages the lock names"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_vendored_file_is_as_its_author_published_it(file):
    found = "sha256-" + base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()

    assert found == FILES[file], f"{file.name} was changed by hand; {HOW}. Our own rules go to static/cpv/panel.css"


def test_nothing_is_vendored_without_a_hash():
    unlisted = {file for file in VENDOR.rglob("*") if file.is_file()} - set(FILES) - {VENDOR / "vendor.lock.json"}

    assert not unlisted, f"not in static/vendor/vendor.lock.json; list them there and {HOW}"


def test_no_vendored_file_names_a_source_map():
    """WhiteNoise's manifest would look for the map at collectstatic and fail."""
    assert not [file.name for file in FILES if b"sourceMappingURL" in file.read_bytes()]
