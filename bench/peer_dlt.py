"""
dlt as its users write it: a REST source, merged into PostgreSQL by primary key.

A program of its own with a Python of its own (`.venv-bench`), which knows neither Django nor the product. It keeps the
same fields as the product, which spares dlt the others; its table has no index for a search, which spares it more.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dlt
from dlt.sources.helpers.requests import Request, Response
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from dlt.sources.rest_api import rest_api_source

from bench.clock import WATCHED, clock


class Continuation(BasePaginator):  # type: ignore[misc]  # not installed where types are checked
    """Partner Center's next link, whose token travels in a header."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self._root = root
        self._next: dict[str, Any] = {}

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        self._next = response.json()["links"].get("next", {})
        self._has_next_page = bool(self._next)

    def update_request(self, request: Request) -> None:
        if self._next:
            request.url, request.params = self._root + self._next["uri"], {}
            request.headers = {**(request.headers or {}), **{one["key"]: one["value"] for one in self._next["headers"]}}


def kept(item: dict[str, Any]) -> dict[str, Any]:
    profile = item["companyProfile"]
    return {
        "tenant_id": profile["tenantId"],
        "name": profile["companyName"],
        "domain": profile["domain"],
        "relationship": item["relationshipToPartner"],
    }


def sync(bearer: str, size: int, folder: str) -> dict[str, Any]:
    """One run, into nothing or over what an earlier one left; `folder` keeps dlt's own state between them."""
    root = os.environ["CPV_SANDBOX_URL"] + "/v1"
    figures: dict[str, Any] = {}
    with clock(figures):
        source = rest_api_source(
            {
                "client": {
                    "base_url": root,
                    "headers": {"Host": "api.partnercenter.microsoft.com", "Authorization": f"Bearer {bearer}"},
                    "paginator": Continuation(root),
                },
                "resources": [
                    {
                        "name": "customers",
                        "primary_key": "tenant_id",
                        "write_disposition": "merge",
                        "endpoint": {"path": "customers", "params": {"size": 500}, "data_selector": "items"},
                        "processing_steps": [{"map": kept}],
                    }
                ],
            }
        )
        pipeline = dlt.pipeline(
            "peer",
            pipelines_dir=folder,
            destination=dlt.destinations.postgres(os.environ[WATCHED]),
            dataset_name="peer_dlt",
        )
        pipeline.run(source).raise_on_failed_jobs()
    with pipeline.sql_client() as client, client.execute_query("SELECT count(*) FROM customers") as cursor:
        found = cursor.fetchone()
    assert found == (size,), found
    return figures


if __name__ == "__main__":
    print(json.dumps(sync(**json.loads(sys.argv[1]))))  # noqa: T201 - read by bench.ground
