"""`python -m sandbox serve` runs the stand-in; `python -m sandbox scenario` changes one that runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sandbox import demo
from sandbox.app import create_app
from sandbox.drift import ORDERS
from sandbox.kept import KEEP_BYTES
from sandbox.ledger import REFRESH_MODES
from sandbox.scenarios import SCENARIOS
from sandbox.server import Server, serve
from sandbox.state import FileStore, Store
from sandbox.world import World

WRONG_USE = 2
NOT_RUNNING = 1

# what a scenario may be told, of which type, and which ones take it
PARAMS: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("retry_after", int, "seconds, for throttled"),
    ("code", int, "AADSTS number, for entra-error"),
    ("seconds", float, "for slow, latency, limit, refresh-tokens and clock-skew"),
    ("kind", str, "what goes wrong, for the …-fault ones; which ones, for quirks"),
    ("operation", str, "for vault-fault: get, set or update; for entra-fault: a grant type; else first or next"),
    ("suberror", str, "for entra-error, instead of what Entra usually sends"),
    ("mode", str, "for refresh-tokens and unstable"),
    ("times", int, "end by itself after so many requests"),
    ("after", int, "let so many requests pass first, for the …-fault ones"),
    ("path", str, "a part of the path, for the …-fault ones, latency and limit"),
    ("method", str, "for the …-fault ones and limit"),
    ("size", int, "bytes, for the kind too-many-bytes"),
    ("service", str, "for latency"),
    ("requests", int, "for limit"),
    ("per", str, "for limit: partner or customer"),
    ("share", float, "from 0 to 1, for changed and absent"),
    ("number", int, "for customers"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 fine, 1 the stand-in does not answer, 2 wrong use."""
    options = _parser().parse_args(argv)
    code: int = options.run(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="The pretended Microsoft cloud.")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("serve", help="run the stand-in with the demo world")
    run.add_argument("--host", default="127.0.0.1")
    run.add_argument("--port", type=int, default=int(os.environ.get("CPV_SANDBOX_PORT") or 8400))
    run.add_argument("--public-url", default=os.environ.get("CPV_SANDBOX_PUBLIC_URL"), help="what browsers call it")
    run.add_argument("--state", type=Path, help="folder to keep the world in; without it, memory only")
    run.add_argument("--refresh-tokens", choices=REFRESH_MODES, help="what becomes of spent ones; entra by itself")
    run.set_defaults(run=_serve)
    play = commands.add_parser("scenario", help="let something happen")
    play.add_argument("name", nargs="?")
    play.add_argument("partner", nargs="?", help="tenant id or name")
    play.add_argument("--list", action="store_true", help="show all scenarios")
    play.add_argument("--url", default=os.environ.get("CPV_SANDBOX_URL") or "http://localhost:8400")
    play.add_argument("--file", type=Path, help="play what this file lists: JSON, [{name, tenant?, params?}, …]")
    for name, kind, words in PARAMS:
        choices = (*REFRESH_MODES, *ORDERS) if name == "mode" else None
        play.add_argument(f"--{name.replace('_', '-')}", type=kind, help=words, choices=choices)
    play.set_defaults(run=_scenario)
    return parser


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


def _serve(options: argparse.Namespace) -> int:
    store = FileStore(options.state) if options.state else Store()
    url = options.public_url or f"http://localhost:{options.port}"
    world = World(
        public_url=url, store=store, usual_refresh_mode=options.refresh_tokens or "entra", keep_bytes=KEEP_BYTES
    )
    world.remember_secrets = False
    demo.build(world, os.environ)
    world.restore()
    if options.refresh_tokens:  # who asks for a mode now means it, whatever an earlier process kept
        world.refresh_tokens(options.refresh_tokens)
    try:
        server = Server((options.host, options.port), create_app(world))
    except OSError as error:
        _complain(f"Port {options.port} on {options.host} cannot be used: {error.strerror}.")
        return NOT_RUNNING
    where = f"{options.host}:{server.server_address[1]}"
    serve(server, lambda: _say(f"The pretended Microsoft cloud listens on {where}; see {url}/_sandbox/"))
    return 0


def _scenario(options: argparse.Namespace) -> int:
    if options.list or not (options.name or options.file):
        for name, scenario in SCENARIOS.items():
            _say(f"{name:26} {scenario.effect.format(partner='the partner')}")
        return 0 if options.list else WRONG_USE
    given = {name: getattr(options, name) for name, _, _ in PARAMS}
    params = {name: value for name, value in given.items() if value is not None}
    try:
        steps = json.loads(options.file.read_text("utf-8")) if options.file else []
        steps = steps or [{"name": options.name, "tenant": options.partner, "params": params}]
    except (OSError, ValueError) as error:
        _complain(f"{options.file} cannot be read: {error}")
        return WRONG_USE
    return next((code for step in steps if (code := _play(options.url, step))), 0)


def _play(url: str, step: dict[str, Any]) -> int:
    """One step of a scenario; the exit code."""
    try:
        told = _post(url, step)
    except urllib.error.HTTPError as error:
        _complain(_reason(error))
        return WRONG_USE
    except OSError:
        _complain(f"Nothing answers at {url}. Is the stand-in running? Its address is CPV_SANDBOX_URL.")
        return NOT_RUNNING
    _say(told["effect"] + (f"\nTo undo it: {told['undo']}" if told["undo"] else ""))
    return 0


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (ValueError, KeyError, TypeError):
        return f"The stand-in answered {error.code}; is it one?"


def _post(url: str, body: dict[str, Any]) -> dict[str, str]:
    if not url.startswith(("http://", "https://")):
        raise OSError("not a web address")
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked just now
        url.rstrip("/") + "/_sandbox/scenario",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the scheme was checked just now
        told: dict[str, str] = json.load(answer)
    return told


if __name__ == "__main__":
    sys.exit(main())
