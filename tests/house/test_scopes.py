"""Who may look across partners: each place is named here, with its reason, so that a new one is noticed."""

from __future__ import annotations

import ast
from pathlib import Path

ROOMS = ("cpvpanel", "consent", "partners", "tokens")
ACROSS = {
    "a command of the vendor's": "partners/commands.py",
    "a job is claimed": "partners/jobs/running.py",
    "a job is leased": "partners/jobs/claiming.py",
    "a job is taken": "partners/jobs/running.py",
    "a person becomes a user": "consent/team.py",
    "a person's sessions end": "partners/models/people.py",
    "a sign-in is claimed": "tokens/rotation.py",
    "changes that wait": "partners/changes.py",
    "looks that are over": "partners/borrowed.py",
    "nobody is known yet": "consent/views.py",
    "notices that are due": "consent/notices.py",
    "questions that wait": "partners/lookups.py",
    "sign-ins nobody uses": "tokens/rotation.py",
    "sign-ins that are due": "tokens/rotation.py",
    "sweeping": "tokens/sweeping.py",
    "sweeping after a stop": "tokens/sweeping.py",
    "the audit of all": "tokens/audit_chain.py",
    "the desk": "cpvpanel/desk.py",
    "the first look": "cpvpanel/demo.py",
    "the gate's question is put into words": "tokens/gate.py",
    "tidying changes": "partners/changes.py",
    "tidying consent": "consent/tasks.py",
    "tidying paces": "partners/pacing.py",
    "tidying runs": "partners/jobs/schedule.py",
    "tidying the strong-room": "tokens/tasks.py",
    "watching for stops": "tokens/watch.py",
    "what all calls share": "partners/circuits.py",
    "what is to be done for whom": "partners/jobs/schedule.py",
    "what our own people are told": "partners/alarm_mails.py",
    "what is ours to repair": "tokens/alarms.py",
    "whether calls may leave": "tokens/gate.py",
    "whether staff were lent a look": "partners/borrowed.py",
    "when work is due": "partners/jobs/claiming.py",
    "whether work waits": "partners/jobs/claiming.py",
    "who else waits": "partners/jobs/claiming.py",
    "who is to be told what": "consent/notices.py",
    "who may enter": "partners/access.py",
    "whose change it is": "partners/change_steps.py",
    "whose customers are many": "partners/search_index.py",
    "whose notice it is": "consent/notices.py",
    "whose rows are old": "partners/removals.py",
    "whose question it is": "partners/lookups.py",
    "work that is due": "partners/jobs/claiming.py",
}


def calls(name: str) -> list[tuple[str, str]]:
    """Where a function is called, as (its first argument when that is a text, the file)."""
    found = []
    for room in ROOMS:
        for path in sorted(Path(room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
                    first = node.args[0] if node.args else None
                    found.append((first.value if isinstance(first, ast.Constant) else "", str(path)))
    return found


def test_every_place_that_looks_across_partners_is_named_here():
    assert sorted(set(calls("system_scope"))) == sorted(ACROSS.items())


def test_only_migrations_work_as_the_owner():
    assert calls("owner_scope") == [("", "cpvpanel/management/commands/migrate.py")]


def test_only_where_work_begins_scopes_are_closed():
    assert {path for _, path in calls("no_scope")} == {
        "consent/views_team.py", "cpvpanel/celery.py", "cpvpanel/middleware.py", "partners/commands.py",
    }  # fmt: skip
