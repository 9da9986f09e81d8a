"""How partners of a bench are called, apart from the stand-in: what measures a worker holds no more than a worker."""

from __future__ import annotations

WARMING = "mfa"  # the kind that a worker has run before it is measured: a short list


def tenant_of(size: int) -> str:
    """The partner with this many customers."""
    return f"be7c4000-0000-4000-8000-{size:012d}"


def name_of(tenant_id: str) -> str:
    """The same one, after what tells tenant ids apart."""
    return f"Bench{int(tenant_id.rpartition('-')[2])}"
