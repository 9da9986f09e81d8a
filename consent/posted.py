"""
The way back by `form_post`: what Microsoft's page posted waits here, sealed, for the browser to come and take it.

A form posted from Microsoft's site brings no session cookie (SameSite=Lax), so nobody can tell yet whose it is. It is
put away for a minute under a random id, and the browser is led to that id on our own site, cookie included.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Mapping

from django.utils import timezone

from consent.models import ConsentAttempt, PostedAnswer, digest
from consent.refusals import WAY_ON, Refused
from tokens import outside
from tokens.secret import Secret

LIFE = dt.timedelta(seconds=60)
MOST_BYTES = 32 * 1024  # of the whole form; a code has a few hundred
LONGEST = {"state": 512, "code": 8192, "error": 100, "error_description": 4096, "iss": 512}


def keep(kind: str, fields: Mapping[str, str]) -> str:
    """
    Put the fields of an answer away; returns the id they can be taken with, once and for a minute.

    :raises Refused: no attempt of ours has this state, or a field is longer than Microsoft's are; nothing is stored
    """
    answer = {name: fields[name] for name in LONGEST if name in fields}
    if any(len(value) > LONGEST[name] for name, value in answer.items()):
        raise Refused("unfit_answer", retry_path=WAY_ON[kind])
    if not ConsentAttempt.objects.filter(kind=kind, state_hash=digest(answer.get("state", ""))).exists():
        raise Refused("unknown_attempt", retry_path=WAY_ON[kind])
    now = timezone.now()
    PostedAnswer.objects.filter(expires_at__lte=now).delete()
    name = secrets.token_urlsafe(32)
    id_hash = _id_hash(kind, name)
    sealed = outside.keyring().seal(Secret(json.dumps(answer)), aad=_aad(id_hash))
    PostedAnswer.objects.create(id_hash=id_hash, sealed=sealed, expires_at=now + LIFE)
    return name


def take(kind: str, name: str) -> dict[str, str]:
    """
    The answer put away under this id, which is used up with that.

    :raises Refused: unknown, older than a minute, taken already, or an answer to something else
    """
    id_hash = _id_hash(kind, name)
    waiting = PostedAnswer.objects.filter(id_hash=id_hash, expires_at__gt=timezone.now())
    sealed = waiting.values_list("sealed", flat=True).first()
    if sealed is None or waiting.delete()[0] != 1:
        raise Refused("answer_gone", retry_path=WAY_ON[kind])
    answer: dict[str, str] = json.loads(outside.keyring().open(sealed, aad=_aad(id_hash)).reveal())
    return answer


def _id_hash(kind: str, name: str) -> bytes:
    return digest(f"{kind}/{name}")  # so that an answer to something else is not even found


def _aad(id_hash: bytes) -> list[str]:
    return ["answer", id_hash.hex()]
