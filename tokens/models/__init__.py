"""The strong-room's tables: pointers to secrets, stops, and what was done and decided. Never a token itself."""

from tokens.models.records import (
    LONGEST_LIFE,
    LONGEST_NUMBER,
    Alarm,
    AuditAnchor,
    AuditEvent,
    AuditLink,
    AuditWitness,
    TokenUse,
    UnknownAnswer,
)
from tokens.models.refresh_tokens import (
    BY_A_STOP,
    CONFIRM_WITHIN,
    LEASE,
    REFUSALS,
    RefreshToken,
    SecretVersion,
    open_to_consent,
)
from tokens.models.stops import Halt, Sender

__all__ = [
    "BY_A_STOP",
    "CONFIRM_WITHIN",
    "LEASE",
    "LONGEST_LIFE",
    "LONGEST_NUMBER",
    "REFUSALS",
    "Alarm",
    "AuditAnchor",
    "AuditEvent",
    "AuditLink",
    "AuditWitness",
    "Halt",
    "RefreshToken",
    "SecretVersion",
    "Sender",
    "TokenUse",
    "UnknownAnswer",
    "open_to_consent",
]
