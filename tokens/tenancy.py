"""
The tenant wall in the code and in the database: whose rows may be touched right now.

Every table of partners is closed until somebody says for whom: `partner_scope` opens one partner's rows, `system_scope`
what work across partners needs, and never what is mirrored of their customers. The scope belongs to the running code,
not to a transaction; so it may last over a call to Microsoft, which a transaction must not. Before each statement the
connection is brought into line: on PostgreSQL by the role and the setting that the policies read, both for the running
transaction only. On other databases the managers alone keep partners apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from partners.models import Partner

TENANT, SYSTEM = "cpv_tenant", "cpv_system"  # roles of the database; the login is a member of both and inherits neither
LOGIN = "none"  # the login's own rights: what belongs to no partner
SETTING = "app.partner_id"

_TAKE_ON = f"SELECT set_config('role', %s, true), set_config('{SETTING}', %s, true)"
_READS_OR_WRITES = re.compile(
    r"(?:SAVEPOINT \w+;)?\s*\(*\s*(SELECT|INSERT|UPDATE|DELETE|WITH|COPY|MERGE|DECLARE|EXPLAIN|TABLE|TRUNCATE)\b", re.I
)
_TAKEN_ON = "cpv_taken_on"  # on a connection: what its running transaction acts as; None where we do not know
_OF_THE_LOGIN = (LOGIN, "")


class NoScope(RuntimeError):
    """Rows of partners were asked for, and nobody said whose: a mistake of ours, and never an answer of no rows."""


class NotForSystem(RuntimeError):
    """What is mirrored of customers was asked for across partners; it belongs to one partner at a time."""


class OtherPartner(RuntimeError):
    """One partner's work reached for another partner."""


@dataclass(frozen=True)
class Scope:
    """Whose rows may be touched: a role of the database, and the partner where there is one."""

    role: str
    partner_id: int | None = None
    reason: str = ""


OUTSIDE = Scope(LOGIN)
_current: ContextVar[Scope | None] = ContextVar("cpv_scope", default=None)


def current() -> Scope | None:
    """The scope of the running code; None outside all."""
    return _current.get()


def is_within_a_partner() -> bool:
    """Whether one partner's rows are open, and nobody else's."""
    open_now = _current.get()
    return open_now is not None and open_now.role == TENANT


# --- Opening one ----------------------------------------------------------------------------------------------------
@contextmanager
def partner_scope(partner: Partner | int) -> Iterator[None]:
    """
    Open one partner's rows, and nobody else's.

    :raises OtherPartner: another partner's are open already
    """
    partner_id = partner if isinstance(partner, int) else partner.pk
    outer = _current.get()
    if outer is not None and outer.role == TENANT and outer.partner_id != partner_id:
        raise OtherPartner(f"the rows of partner {partner_id} were asked for within the work for {outer.partner_id}")
    with _entered(Scope(TENANT, partner_id)):
        yield


@contextmanager
def system_scope(reason: str) -> Iterator[None]:
    """Open what work across partners needs, for a reason that a reader of the code understands."""
    with _entered(Scope(SYSTEM, reason=reason)):
        yield


@contextmanager
def owner_scope() -> Iterator[None]:
    """Open everything to the extent of the login's own rights: for migrations, which run as the tables' owner."""
    with _entered(Scope(LOGIN, reason="owner")):
        yield


@contextmanager
def no_scope() -> Iterator[None]:
    """Close what is open: a request, a task or a command begins with nothing that was left by another."""
    with _entered(None):
        yield


@contextmanager
def _entered(wanted: Scope | None) -> Iterator[None]:
    token = _current.set(wanted)
    try:
        yield
    finally:
        _current.reset(token)


# --- The managers ---------------------------------------------------------------------------------------------------
class OfOnePartner:
    """Among a queryset's bases: its manager sees one partner's rows within its scope, and refuses outside of any."""

    if not TYPE_CHECKING:  # pragma: no branch - type checkers are to see the manager that Django would make

        @classmethod
        def as_manager(cls) -> models.Manager[Any]:
            manager_class = models.Manager.from_queryset(cls)
            manager_class.get_queryset = _of_the_scope
            return manager_class()


def _of_the_scope(manager: models.Manager[Any]) -> models.QuerySet[Any]:
    rows, open_now = models.Manager.get_queryset(manager), _current.get()
    if open_now is None:
        raise NoScope(_refusal(manager.model._meta.db_table))
    return rows.filter(partner=open_now.partner_id) if open_now.role == TENANT else rows


def _refusal(table: str) -> str:
    return f"{table} is not open here: say whose rows with partner_scope or system_scope"


# --- Every statement ------------------------------------------------------------------------------------------------
@cache
def tenant_tables() -> frozenset[str]:
    """The tables whose rows belong to partners, and the one of the partners themselves."""
    of_partners = {model._meta.db_table for model in apps.get_models() if owner_of(model)}
    return frozenset(of_partners)


@cache
def mirrored_tables() -> frozenset[str]:
    """Those that hold what is mirrored of customers."""
    return frozenset(model._meta.db_table for model in apps.get_models() if getattr(model, "is_mirrored", False))


def owner_of(model: type[models.Model]) -> str:
    """The column that says whose a row of this model is; "" where it belongs to no partner."""
    if model._meta.label_lower == "partners.partner":
        return "id"
    named = (field for field in model._meta.concrete_fields if field.name == "partner")
    return next((str(field.column) for field in named if field.related_model), "")


@cache
def _names_one_of(tables: frozenset[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(sorted(tables)) or '(?!)'})\b")


def guard(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Let a statement through under the scope that is open; an execute wrapper of every connection."""
    connection: BaseDatabaseWrapper = context["connection"]
    text: str = sql if isinstance(sql, str) else sql.as_string(connection.connection)
    _check(text)
    if connection.vendor != "postgresql":
        return execute(sql, params, many, context)
    if text.startswith("ROLLBACK TO SAVEPOINT"):
        setattr(connection, _TAKEN_ON, None)  # it undoes the settings made since, too
        return execute(sql, params, many, context)
    wanted = _current.get() or OUTSIDE
    if connection.in_atomic_block:
        _take_on(connection, wanted)
        return execute(sql, params, many, context)
    if wanted.role == LOGIN:
        return execute(sql, params, many, context)
    with transaction.atomic(using=connection.alias):
        _take_on(connection, wanted)
        return execute(sql, params, many, context)


def _check(text: str) -> None:
    """
    Refuse a statement that names tables which are not open.

    :raises NoScope: nothing is open
    :raises NotForSystem: rows of customers are asked for across partners
    """
    open_now = _current.get()
    if open_now is not None and open_now.role != SYSTEM:
        return
    if not _READS_OR_WRITES.match(text):
        return
    closed, error = (tenant_tables(), NoScope) if open_now is None else (mirrored_tables(), NotForSystem)
    found = _names_one_of(closed).search(text)
    if found:
        raise error(_refusal(found[0]))


def _take_on(connection: BaseDatabaseWrapper, wanted: Scope) -> None:
    """Have the running transaction act in the scope's role; it ends with the transaction."""
    raw: Any = connection.connection
    status = raw.info.transaction_status
    if status == TransactionStatus.INERROR:
        return  # whatever comes now is refused by the database anyway
    if status == TransactionStatus.IDLE:  # a new transaction begins as the login itself
        setattr(connection, _TAKEN_ON, _OF_THE_LOGIN)
    wants = (wanted.role, str(wanted.partner_id or ""))
    if getattr(connection, _TAKEN_ON, None) == wants:
        return
    with connection.wrap_database_errors, raw.cursor() as cursor:  # a lost connection is Django's error, as ever
        cursor.execute(_TAKE_ON, wants)
    setattr(connection, _TAKEN_ON, wants)


def guard_connection(*, connection: BaseDatabaseWrapper, **_signal: Any) -> None:
    """Guard each connection from its first statement on."""
    if guard not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, guard)
