"""
How people mirror a list with Django alone: `python -m bench.peers NAME OPTIONS`, into a twin of the mirror's table.

No walls here, no lease, no run: a session, json, and the ORM.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import django
import requests

django.setup()

from django.db import connection, models  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402
from django.utils import timezone  # noqa: E402

from bench.clock import clock  # noqa: E402
from bench.limits import FIRST, PARTNER_CENTER  # noqa: E402

NOTHING = bytes(16)


class Mirrored(models.Model):
    """A row of the twin; it has every column and index of the mirror's table."""

    partner_id = models.BigIntegerField()
    tenant_id = models.UUIDField()
    name = models.CharField(max_length=400)
    name_key = models.CharField(max_length=400)
    domain = models.CharField(max_length=255)
    relationship = models.CharField(max_length=40)
    content_hash = models.BinaryField()
    first_seen_at = models.DateTimeField(default=timezone.now)
    changed_at = models.DateTimeField(default=timezone.now)
    removed_reason = models.CharField(max_length=40)

    class Meta:
        app_label = "bench"
        managed = False
        db_table = "bench_peer"

    def __str__(self) -> str:
        return self.name


KEY = ["partner_id", "tenant_id"]
WRITTEN = ["name", "name_key", "domain", "relationship", "changed_at"]


def _pages(bearer: str, most: int) -> Iterator[list[dict[str, Any]]]:
    """The fields of a row for each customer of a page, until so many customers were seen."""
    http, seen = requests.Session(), 0
    http.trust_env = False
    http.headers.update({"Host": PARTNER_CENTER, "Authorization": f"Bearer {bearer}"})
    root = os.environ["CPV_SANDBOX_URL"]
    answer = http.get(root + FIRST, timeout=30)
    while seen < most:
        body = answer.json()
        seen += len(body["items"])
        yield [_fields(item) for item in body["items"]]
        following = body["links"].get("next")
        if following is None:
            return
        headers = {header["key"]: header["value"] for header in following["headers"]}
        answer = http.get(f"{root}/v1{following['uri']}", headers=headers, timeout=30)


def _fields(item: dict[str, Any]) -> dict[str, Any]:
    profile = item["companyProfile"]
    return {
        "partner_id": 1,
        "tenant_id": profile["tenantId"],
        "name": profile["companyName"],
        "name_key": profile["companyName"].casefold(),
        "domain": profile["domain"],
        "relationship": item["relationshipToPartner"],
        "content_hash": NOTHING,
    }


def _open() -> None:
    """The peers' own table is nobody's: what guards the product's statements would only slow them down."""
    connection_created.disconnect(dispatch_uid="tenancy")
    connection.close()
    connection.ensure_connection()
    connection.execute_wrappers.clear()


def bulk_create(bearer: str, size: int) -> dict[str, Any]:
    """Each page in one statement that inserts or updates."""
    _open()
    figures: dict[str, Any] = {}
    with clock(figures):
        for page in _pages(bearer, size):
            rows = [Mirrored(**fields) for fields in page]
            Mirrored._default_manager.bulk_create(rows, update_conflicts=True, unique_fields=KEY, update_fields=WRITTEN)
    assert Mirrored._default_manager.count() == size
    return figures


def update_or_create(bearer: str, size: int, stands_for: int) -> dict[str, Any]:
    """Row by row, until there are `size` rows; everything but memory is extrapolated to as many as they stand for."""
    _open()
    figures: dict[str, Any] = {}
    with clock(figures):
        for page in _pages(bearer, size):
            for fields in page[:size]:
                key = {name: fields.pop(name) for name in KEY}
                Mirrored._default_manager.update_or_create(**key, defaults=fields)
    return {name: value if name == "memory" else value * stands_for / size for name, value in figures.items()}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](**json.loads(sys.argv[2]))))  # noqa: T201 - read by bench.ground
