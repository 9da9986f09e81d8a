"""
A message broker in a folder, for a first look and for tests: kombu's file transport, made safe to crash.

    queues/<queue>/<time>-<random>.<n>    a waiting message that was handed out n times before
    claims/<pid>-<random>/<queue>@<file>  a message that a process holds and has not acknowledged
    claims/<pid>-<random>.lock            locked as long as that process lives
    exchanges/<exchange>                  the queues that an exchange delivers to
    parts/                                half-written files, which nobody reads

Every step is one rename, so a message is always in exactly one place. Bodies are plain text: send ids only.
"""

import fcntl
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from kombu.log import get_logger
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.utils.json import dumps, loads

logger = get_logger(__name__)

SWEEP_INTERVAL = 5.0  # seconds between two looks for dead owners
FORGET_AFTER = 3600.0  # seconds until a half-written file is removed

Binding = tuple[str, str, str]  # routing key, pattern, queue


def register() -> None:
    """Make kombu and Celery understand `filequeue://`."""
    TRANSPORT_ALIASES["filequeue"] = f"{__name__}:Transport"


def escape(name: str) -> str:
    """A queue's name as the name of one file: no separator, no `@`, no leading dot, and reversible."""
    return quote(name, safe="").replace(".", "%2E") or "%"


def listing(folder: Path) -> list[str]:
    """The visible names in a folder, oldest message first; none when there is no such folder."""
    with suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []


def move(source: Path, target: Path) -> None:
    """Rename atomically, making the target's folder when it is the first file there."""
    try:
        source.rename(target)
    except FileNotFoundError:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        source.rename(target)


class Claims:
    """The messages that this process holds: its own folder, for as long as its lock is held."""

    def __init__(self, folder: Path) -> None:
        self.next_sweep = 0.0
        linked = 0
        while not linked:  # a sweeper may take the new, not yet locked file for a dead one and remove it
            self.path = folder / f"{os.getpid()}-{secrets.token_hex(8)}"
            # POSIX locks belong to the process: a forked child neither inherits nor keeps them, unlike flock.
            self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.lockf(self._lock, fcntl.LOCK_EX)
            linked = os.fstat(self._lock).st_nlink
        self.path.mkdir(mode=0o700)


_claims: dict[tuple[int, Path], Claims] = {}  # by process and folder: a forked child needs its own


class Folder:
    """The files of the message broker, as one channel sees them."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).resolve()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("queues", "claims", "exchanges", "parts"):
            (self.path / name).mkdir(mode=0o700, exist_ok=True)
        self._waiting: dict[str, deque[str]] = {}

    def queue(self, name: str) -> Path:
        return self.path / "queues" / escape(name)

    @property
    def claims(self) -> Claims:
        """What this process holds."""
        key = (os.getpid(), self.path)
        return _claims.get(key) or _claims.setdefault(key, Claims(self.path / "claims"))

    def _write(self, target: Path, data: str) -> None:
        part = self.path / "parts" / f"{secrets.token_hex(16)}.part"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(data)
        move(part, target)

    def put(self, queue: str, data: str) -> None:
        self._write(self.queue(queue) / f"{time.time_ns():020d}-{secrets.token_hex(8)}.0", data)

    def claim(self, queue: str) -> Path | None:
        """Take the oldest waiting message, or None when there is none."""
        waiting = self._waiting.setdefault(queue, deque())
        if time.monotonic() >= self.claims.next_sweep:
            self.sweep()
        if not waiting:
            waiting.extend(listing(self.queue(queue)))
        while waiting:
            name = waiting.popleft()
            claimed = self.claims.path / f"{escape(queue)}@{name}"
            with suppress(FileNotFoundError):  # another consumer was faster
                (self.queue(queue) / name).rename(claimed)
                return claimed
        return None

    def give_back(self, claimed: Path) -> None:
        """Return a claimed message to the front of its queue, counted as handed out once more."""
        queue, _, name = claimed.name.partition("@")
        stem, _, times = name.rpartition(".")
        with suppress(FileNotFoundError):  # acknowledged meanwhile, or given back by another sweeper
            move(claimed, self.path / "queues" / queue / f"{stem}.{int(times) + 1}")

    def purge(self, queue: str) -> int:
        """Remove what is waiting; answers how many there were."""
        removed = 0
        for name in listing(self.queue(queue)):
            with suppress(FileNotFoundError):
                (self.queue(queue) / name).unlink()
                removed += 1
        return removed

    def bindings(self, exchange: str) -> list[Binding]:
        with suppress(FileNotFoundError):
            return [tuple(line) for line in loads((self.path / "exchanges" / escape(exchange)).read_text())]
        return []

    @contextmanager
    def changing(self, exchange: str) -> Iterator[list[Binding]]:
        """The bindings of an exchange, changed by one thread of one process at a time and read without a lock."""
        lock = os.open(self.path / "exchanges" / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)  # flock, not lockf: threads of one process must wait for each other too
        try:
            bindings = self.bindings(exchange)
            before = list(bindings)
            yield bindings
            if bindings != before:
                self._write(self.path / "exchanges" / escape(exchange), dumps(bindings))
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing would not do: a child forked meanwhile has the file open too
            os.close(lock)

    def delete(self, queue: str) -> None:
        for exchange in listing(self.path / "exchanges"):
            with self.changing(unquote(exchange)) as bindings:
                bindings[:] = [binding for binding in bindings if binding[2] != queue]
        shutil.rmtree(self.queue(queue), ignore_errors=True)

    def sweep(self) -> None:
        """Give back what dead processes held, and clear away what they left half-written."""
        self.claims.next_sweep = time.monotonic() + SWEEP_INTERVAL
        for lock in (self.path / "claims").glob("*.lock"):
            # Opening and closing our own lock file would release the lock.
            if lock.stem != self.claims.path.name:
                self._bury(lock)
        for part in listing(self.path / "parts"):
            with suppress(FileNotFoundError):
                if (self.path / "parts" / part).stat().st_mtime < time.time() - FORGET_AFTER:
                    (self.path / "parts" / part).unlink()

    def _bury(self, lock: Path) -> None:
        with suppress(FileNotFoundError), open(lock, "r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return  # alive
            held = lock.with_suffix("")
            for name in listing(held):
                self.give_back(held / name)
            if held.exists():
                held.rmdir()
            lock.unlink()


class QoS(virtual.QoS):
    """Ends a message's claim when it is acknowledged or refused; may be called from any thread."""

    channel: "Channel"

    def ack(self, delivery_tag: str) -> None:
        self.channel.discard(delivery_tag)
        super().ack(delivery_tag)
        self.channel.slot_free.set()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not requeue:
            self.channel.discard(delivery_tag)
        super().reject(delivery_tag, requeue=requeue)  # gives it back by way of _restore
        self.channel.slot_free.set()


class Channel(virtual.Channel):
    """A channel whose delivery tags are the names of claimed files."""

    QoS = QoS
    supports_fanout = True

    def __init__(self, connection: "Transport", **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self.folder = Folder((connection.client.transport_options or {})["data_folder"])  # type: ignore[union-attr]
        self.slot_free = connection.slot_free
        self._unacknowledged: set[str] = set()  # queues whose messages are deleted at fetch

    def discard(self, tag: str) -> None:
        (self.folder.claims.path / tag).unlink(missing_ok=True)

    def _restore(self, message: Any) -> None:
        self.folder.give_back(self.folder.claims.path / message.delivery_tag)

    def _put(self, queue: str, message: Any, **_kwargs: Any) -> None:
        self.folder.put(queue, dumps(message))

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **_kwargs: Any) -> None:
        for queue in {queue for _, _, queue in self.get_table(exchange)}:
            self._put(queue, message)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        while claimed := self.folder.claim(queue):
            try:
                payload: dict[str, Any] = loads(claimed.read_text())
                payload["properties"]["delivery_tag"] = claimed.name
                payload["properties"]["delivery_info"]["redelivered"] = not claimed.name.endswith(".0")
            except (ValueError, TypeError, KeyError):  # only a power cut or a foreign hand can do this
                logger.error("Unreadable message %s removed", claimed.name)
                claimed.unlink()
                continue
            if queue in self._unacknowledged:
                claimed.unlink()
            return payload
        raise Empty

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> virtual.Message | None:
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message and no_ack:
            self.discard(str(message.delivery_tag))
        return message

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        (self._unacknowledged.add if no_ack else self._unacknowledged.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self.folder.delete(queue)

    def _purge(self, queue: str) -> int:
        return self.folder.purge(queue)

    def _size(self, queue: str) -> int:
        return len(listing(self.folder.queue(queue)))

    def get_table(self, exchange: str) -> list[Binding]:
        return self.folder.bindings(exchange)

    def _queue_bind(self, exchange: str, routing_key: str | None, pattern: str | None, queue: str) -> None:
        binding = (routing_key or "", pattern or "", queue)
        with self.folder.changing(exchange) as bindings:
            if binding not in bindings:
                bindings.append(binding)


class Transport(virtual.Transport):
    """What `filequeue://` stands for; `data_folder` in the transport options says where."""

    Channel = Channel
    polling_interval = 0.2  # seconds between two looks into an empty queue
    driver_type = driver_name = "filequeue"
    default_connection_params: ClassVar[dict[str, Any]] = {}  # no host, and no warning that there is none
    implements = virtual.Transport.implements.extend(exchange_type=frozenset(["direct", "topic", "fanout"]))

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.slot_free = threading.Event()

    def drain_events(  # type: ignore[override]  # the stub's base takes **kwargs only
        self, connection: Any, timeout: float | None = None
    ) -> None:
        """Deliver one message or raise TimeoutError; an acknowledgement ends the pause between two looks."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            self.slot_free.clear()
            with suppress(Empty):
                self.cycle.get(self._deliver, timeout=timeout)  # type: ignore[union-attr]  # set in __init__
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.slot_free.wait(min(self.polling_interval, left))
