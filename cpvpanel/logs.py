"""How every process writes its log: one line an event, key=value for people, JSON in production, secrets masked."""

import logging.config
import re
from typing import Any

import structlog

# Compact JWTs, and the parameters in which codes, tokens and assertions travel. A second net: nothing should log them.
SECRET_SHAPES = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+\.?[\w-]*"
    r"|\b[01]\.A[\w.-]{40,}"  # refresh tokens and codes of Entra
    r"|(?<=/connect/)[\w-]{20,}|(?<=/join/)[\w-]{20,}"
    r"|(?<=/welcome/)[\w/-]{20,}"
    r"|\b(code|state|refresh_token|client_secret|code_verifier|access_token|client_assertion|answer|invitation)=[^&\s\"']{8,}"
)

TALKATIVE = ("urllib3", "kombu", "amqp", "axes", "django.server")
CARELESS = ("django.template", "django.db.backends")  # below WARNING they write whole addresses and rows


def mask_secrets(_logger: Any, _name: str, event: Any) -> Any:
    """Replace whatever looks like a token or a code, in whatever an event carries along."""
    for key, value in event.items():
        if not key.startswith("_"):  # structlog's own
            event[key] = masked(value)
    return event


def masked(value: Any) -> Any:
    """The value with everything that looks like a secret taken out; what is neither number nor dict becomes text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {key: masked(inner) for key, inner in value.items()}
    # A request, an exception or a list shows itself as text only here; so that is where to look.
    return SECRET_SHAPES.sub(lambda found: f"{found[1]}=[masked]" if found[1] else "[masked]", str(value))


def line_format(*, debug: bool) -> dict[str, Any]:
    """How an event becomes a line, in the form `logging.config` takes."""
    shared = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_secrets,
    ]
    renderer = structlog.dev.ConsoleRenderer(colors=False) if debug else structlog.processors.JSONRenderer()
    return {
        "()": structlog.stdlib.ProcessorFormatter,
        "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        "foreign_pre_chain": shared,
    }


def configure(*, debug: bool) -> None:
    """Set up the log of this process; called once, from settings."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": line_format(debug=debug)},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": "INFO"},
            # msal and azure are tamed in tokens/http.py; to name them here would undo that for their parts.
            "loggers": {name: {"level": "WARNING"} for name in (*TALKATIVE, *CARELESS)},
        }
    )
