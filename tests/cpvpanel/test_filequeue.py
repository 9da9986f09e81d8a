"""The embedded message broker: what it promises to producers, to consumers and to those who are killed."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from kombu import Connection, Consumer, Exchange, Queue

from cpvpanel import filequeue

ROOT = Path(__file__).resolve().parents[2]
WORK = Queue("work", Exchange("work", type="direct"), routing_key="work")


@pytest.fixture(autouse=True)
def _registered():
    filequeue.register()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "messages"


@pytest.fixture
def connect(folder) -> Iterator[Callable[[], Connection]]:
    opened = []

    def connect() -> Connection:
        opened.append(Connection("filequeue://", transport_options={"data_folder": str(folder)}))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.release()


@pytest.fixture
def run(folder) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a process of its own, with `connection` and `WORK` at hand."""
    started = []

    def run(code: str) -> subprocess.Popen[str]:
        head = f"""
            from kombu import Connection, Consumer, Exchange, Queue
            from cpvpanel import filequeue
            filequeue.register()
            connection = Connection("filequeue://", transport_options={{"data_folder": {str(folder)!r}}})
            WORK = Queue("work", Exchange("work", type="direct"), routing_key="work")
        """
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", dedent(head) + dedent(code)],
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until(fact: Callable[[], object], within: float = 60.0) -> None:
    """Wait for a fact, and fail when it has not come true in time."""
    deadline = time.monotonic() + within
    while not fact():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)


def publish(connection: Connection, *bodies: str, queue: Queue = WORK) -> None:
    with connection.Producer() as producer:
        for body in bodies:
            producer.publish(body, exchange=queue.exchange, routing_key=queue.routing_key, declare=[queue])


def take(connection: Connection, queue: Queue = WORK):
    return queue(connection.default_channel).get()


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file() and path.suffix != ".lock")


def hold_three(run) -> subprocess.Popen[str]:
    """A process that took three messages, acknowledged none and waits."""
    consumer = run("""
        channel = connection.default_channel
        held = [WORK(channel).get() for _ in range(3)]
        print("held", flush=True)
        input()
    """)
    assert consumer.stdout.readline() == "held\n"
    return consumer


# --- nothing is lost ------------------------------------------------------------------------------------------------


def count_after_two_producers(run, connect, each: int) -> int:
    """How many different messages a busy consumer sees from two processes that publish at the same time."""
    producers = [
        run(f"""
            with connection.Producer() as producer:
                for number in range({each}):
                    producer.publish({{"n": [{name}, number], "pad": "x" * 3000}},
                                     exchange=WORK.exchange, routing_key="work", declare=[WORK])
        """)
        for name in range(2)
    ]
    seen = set()

    def note(body, message):
        seen.add(tuple(body["n"]))
        message.ack()

    connection = connect()
    with Consumer(connection.default_channel, [WORK], callbacks=[note], accept=["json"]):
        deadline = time.monotonic() + each / 50 + 10
        while len(seen) < 2 * each and time.monotonic() < deadline:
            try:
                connection.drain_events(timeout=0.5)
            except TimeoutError:
                if all(producer.poll() is not None for producer in producers):
                    break
    return len(seen)


@pytest.mark.processes
def test_two_producers_and_a_busy_consumer_lose_nothing(run, connect, folder):
    seen = count_after_two_producers(run, connect, 1000)

    assert seen == 2000
    assert files(folder, "queues") == files(folder, "claims") == files(folder, "parts") == []


@pytest.mark.soak
@pytest.mark.processes
def test_two_producers_and_a_busy_consumer_lose_nothing_of_many_messages(run, connect):
    assert count_after_two_producers(run, connect, 4000) == 8000


@pytest.mark.processes
def test_two_consumers_never_get_the_same_message(run, connect):
    publish(connect(), *map(str, range(400)))
    code = """
        channel = connection.default_channel
        input()
        while message := WORK(channel).get():
            print(message.payload, flush=True)
            message.ack()
    """
    consumers = [run(code), run(code)]
    for consumer in consumers:
        consumer.stdin.write("go\n")
        consumer.stdin.flush()
    bodies = [line for consumer in consumers for line in consumer.communicate()[0].splitlines()]

    assert sorted(bodies, key=int) == [str(number) for number in range(400)]


@pytest.mark.processes
def test_a_killed_consumer_gives_its_messages_back_marked_redelivered(run, connect):
    publish(connect(), "a", "b", "c", "d")
    consumer = hold_three(run)
    consumer.send_signal(signal.SIGKILL)
    consumer.wait()

    connection = connect()
    messages = [take(connection) for _ in range(4)]

    assert [(message.payload, message.delivery_info["redelivered"]) for message in messages] == [
        ("a", True),
        ("b", True),
        ("c", True),
        ("d", False),
    ]


@pytest.mark.processes
def test_a_living_consumer_notices_the_death_of_another(run, connect, monkeypatch):
    monkeypatch.setattr(filequeue, "SWEEP_INTERVAL", 0.05)
    connection = connect()
    assert take(connection) is None
    publish(connection, "a", "b", "c")
    consumer = hold_three(run)
    assert take(connection) is None

    consumer.kill()
    consumer.wait()

    until(lambda: take(connection))


@pytest.mark.processes
def test_what_a_living_process_holds_stays_with_it(run, connect, folder):
    publish(connect(), "a", "b", "c", "d")
    hold_three(run)
    connection = connect()

    assert take(connection).payload == "d"
    filequeue.Folder(str(folder)).sweep()
    assert take(connection) is None


def test_a_forked_child_cannot_end_the_claims_of_its_parent(connect, folder):
    publish(connect(), "a")
    message = take(connect())

    child = os.fork()
    if not child:
        message.ack()
        filequeue.Folder(str(folder)).sweep()
        os._exit(0)
    os.waitpid(child, 0)

    assert len(files(folder, "claims")) == 1
    message.ack()
    assert files(folder, "claims") == []


# --- one message's way ----------------------------------------------------------------------------------------------


def test_the_oldest_message_comes_first(connect):
    publish(connect(), "first", "second", "third")
    connection = connect()

    assert [take(connection).payload for _ in range(3)] == ["first", "second", "third"]
    assert take(connection) is None


def test_acknowledging_deletes(connect, folder):
    publish(connect(), "a")

    message = take(connect())
    assert len(files(folder, "claims")) == 1
    message.ack()

    assert files(folder, "claims") == files(folder, "queues") == []


def test_refusing_deletes_unless_it_asks_for_a_second_try(connect, folder):
    publish(connect(), "a")
    connection = connect()

    take(connection).requeue()
    again = take(connection)
    assert again.delivery_info["redelivered"]
    again.reject()

    assert files(folder, "claims") == files(folder, "queues") == []


def test_a_closed_channel_gives_back_what_was_not_acknowledged(connect):
    publish(connect(), "a")
    connection = connect()
    take(connection)

    connection.release()

    assert take(connect()).delivery_info["redelivered"]


def test_an_acknowledgement_that_comes_too_late_harms_nobody(connect):
    publish(connect(), "a")
    connection = connect()
    late = take(connection)
    connection.release()
    again = take(connect())

    late.channel.qos.ack(late.delivery_tag)

    again.ack()
    assert take(connect()) is None


@pytest.mark.processes
def test_messages_that_need_no_acknowledgement_do_not_come_back(connect, run, folder):
    publish(connect(), "a", "b")
    consumer = run("""
        def stop(body, message):
            print(body, flush=True)
            input()
        with Consumer(connection.default_channel, [WORK], callbacks=[stop], no_ack=True):
            connection.drain_events(timeout=5)
    """)
    assert consumer.stdout.readline() == "a\n"
    consumer.kill()
    consumer.wait()

    assert WORK(connect().default_channel).get(no_ack=True).payload == "b"
    assert take(connect()) is None
    assert files(folder, "claims") == []


def test_a_prefetch_limit_holds_and_an_acknowledgement_from_a_thread_ends_the_pause(connect, monkeypatch):
    monkeypatch.setattr(filequeue.Transport, "polling_interval", 30)
    publish(connect(), "a", "b")
    connection, got = connect(), []
    consumer = Consumer(connection.default_channel, [WORK], on_message=got.append, prefetch_count=1)
    with consumer:
        connection.drain_events(timeout=1)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.05)
        threading.Timer(0.05, got[0].ack).start()
        begun = time.monotonic()
        connection.drain_events(timeout=10)

    assert time.monotonic() - begun < 5
    assert [message.payload for message in got] == ["a", "b"]


# --- files ----------------------------------------------------------------------------------------------------------


def test_bodies_are_for_this_user_only(connect, folder):
    publish(connect(), "secret")
    take(connect())
    publish(connect(), "secret")

    for path in [folder, *folder.rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_half_written_files_are_ignored_and_cleared_away_after_an_hour(connect, folder):
    publish(connect(), "whole")
    part = folder / "parts" / "torn.part"
    part.write_text('{"body": "to')
    connection = connect()

    assert take(connection).payload == "whole"
    assert take(connection) is None
    os.utime(part, (0, 0))
    filequeue.Folder(str(folder)).sweep()
    assert not part.exists()


def test_an_unreadable_message_is_removed_and_the_next_one_delivered(connect, folder, caplog):
    publish(connect(), "damaged", "whole")
    files(folder, "queues")[0].write_text('{"body": "to')

    assert take(connect()).payload == "whole"
    assert "Unreadable message" in caplog.text
    assert len(files(folder, "claims")) == 1


@pytest.mark.parametrize("name", ["../../outside", "..", ".", "/etc/outside", "a@b", ".hidden", "%2e%2e", ""])
def test_no_queue_name_leaves_the_folder(connect, folder, name):
    queue = Queue(name, Exchange(f"{name}x", type="direct"), routing_key="key")
    channel = connect().default_channel

    channel._put(name, {"properties": {"delivery_info": {}}})
    channel._queue_bind(f"{name}x", "key", "", name)

    assert channel.get_table(f"{name}x") == [("key", "", name)]
    assert channel._size(queue.name) == 1
    assert [path.parent.parent for path in files(folder, "queues")] == [folder / "queues"]
    assert channel._get(name)["properties"]["delivery_tag"].endswith(".0")
    assert [path.name for path in folder.parent.iterdir()] == ["messages"]
    assert len(files(folder, "claims")) == 1


def test_size_and_purge_count_what_waits(connect):
    connection = connect()
    publish(connection, "a", "b", "c")
    take(connection)

    queue = WORK(connection.default_channel)

    assert queue.queue_declare(passive=True).message_count == 2
    assert queue.purge() == 2
    assert take(connection) is None


def test_a_deleted_queue_gets_nothing_more(connect, folder):
    connection = connect()
    publish(connection, "a")

    WORK(connection.default_channel).delete()

    assert files(folder, "queues") == []
    assert connection.default_channel.get_table("work") == []


# --- exchanges ------------------------------------------------------------------------------------------------------


def test_a_fanout_reaches_every_queue_once(connect):
    connection = connect()
    news = Exchange("news", type="fanout")
    queues = [Queue("left", news), Queue("right", news)]
    with connection.Producer() as producer:
        producer.publish("hello", exchange=news, declare=queues)

    assert [take(connection, queue).payload for queue in queues] == ["hello", "hello"]
    assert [take(connection, queue) for queue in queues] == [None, None]


def test_a_topic_reaches_the_queues_whose_pattern_fits(connect):
    connection = connect()
    topic = Exchange("topic", type="topic")
    fits, other = Queue("fits", topic, routing_key="sync.#"), Queue("other", topic, routing_key="kill.*")
    with connection.Producer() as producer:
        producer.publish("hello", exchange=topic, routing_key="sync.customers", declare=[fits, other])

    assert take(connection, fits).payload == "hello"
    assert take(connection, other) is None


@pytest.mark.processes
def test_concurrent_binds_do_not_tear_the_table(run, folder):
    code = """
        input()
        channel = connection.default_channel
        for number in range(100):
            channel._queue_bind("news", "", "", f"{name}-{number}")
    """
    binders = [run(f"name = {name}\n" + dedent(code)) for name in range(2)]
    for binder in binders:
        binder.stdin.write("go\n")
        binder.stdin.flush()
    reader = filequeue.Folder(str(folder))
    while any(binder.poll() is None for binder in binders):
        reader.bindings("news")

    assert sorted(queue for _, _, queue in reader.bindings("news")) == sorted(
        f"{name}-{number}" for name in range(2) for number in range(100)
    )


# --- Celery ---------------------------------------------------------------------------------------------------------

CELERY_APP = """
from pathlib import Path
from celery import Celery
from cpvpanel import filequeue

filequeue.register()
HERE = Path(__file__).parent
app = Celery("queueapp", broker="filequeue://")
app.conf.broker_transport_options = {"data_folder": str(HERE / "messages")}
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_ignore_result=True)

@app.task(bind=True)
def note(self, name):
    (HERE / name).write_text(str(self.request.delivery_info["redelivered"]))
    if name.startswith("held") and not (HERE / "release").exists():
        import time
        time.sleep(600)
"""


@pytest.fixture
def worker(tmp_path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    (tmp_path / "queueapp.py").write_text(CELERY_APP)
    # A first look's settings: the package brings the checks without which no worker starts on the suite's own.
    first_look = {"DEBUG": "true", "DJANGO_SETTINGS_MODULE": "cpvpanel.settings"}
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "NO_COLOR": "1", **first_look}
    argv = [sys.executable, "-m", "celery", "-A", "queueapp"]
    options = "--without-mingle --without-gossip --without-heartbeat -c 2 --pool"
    started = []

    def worker(pool: str) -> subprocess.Popen[bytes]:
        with open(tmp_path / "log", "ab") as log:
            args = [*argv, "worker", *options.split(), pool]
            started.append(subprocess.Popen(args, env=env, cwd=tmp_path, stdout=log, stderr=log, process_group=0))
        return started[-1]

    yield worker
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def call(connection: Connection, name: str) -> None:
    """Queue the task `note` the way Celery's own client does."""
    queue = Queue("celery", Exchange("celery", type="direct"), routing_key="celery")
    headers = {"id": name, "task": "queueapp.note", "lang": "py"}
    with connection.Producer() as producer:
        producer.publish(
            [[name], {}, {}],
            exchange=queue.exchange,
            routing_key="celery",
            declare=[queue],
            headers=headers,
            serializer="json",
            correlation_id=name,
        )


@pytest.mark.processes
def test_celery_works_with_processes(worker, connect, tmp_path, folder):
    call(connect(), "done")
    worker("prefork")

    until(lambda: (tmp_path / "done").exists() and not files(folder, "claims") + files(folder, "queues/celery"))

    assert (tmp_path / "done").read_text() == "False"


@pytest.mark.processes
def test_a_task_whose_worker_is_killed_runs_again_and_can_see_it(worker, connect, tmp_path, folder):
    call(connect(), "held")
    process = worker("threads")
    until(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text())
    assert (tmp_path / "held").read_text() == "False"
    process.kill()
    process.wait()
    (tmp_path / "release").touch()

    worker("threads")

    until(lambda: (tmp_path / "held").read_text() == "True" and not files(folder, "claims"))
