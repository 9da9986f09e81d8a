"""What was asked of the database."""

from __future__ import annotations

from django.test.utils import CaptureQueriesContext

FRAME = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")  # of a transaction, which asks nothing


def asked(captured: CaptureQueriesContext) -> list[str]:
    """The questions, without where transactions begin and end: on PostgreSQL a page has its own, on SQLite none."""
    return [text for text in (query["sql"] for query in captured) if not text.startswith(FRAME) or "; " in text]
