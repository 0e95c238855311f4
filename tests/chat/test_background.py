"""``start_background_task``: beside its caller, and by a name in one process of all."""

from __future__ import annotations

import functools
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Flask, current_app, g, got_request_exception

from flask_wschat import BackgroundTask, WSChat
from flask_wschat.chat.background import LEASE, LOOK, Background
from flask_wschat.chat.streams import ASKER
from flask_wschat.client import connect
from tests.support.following import in_threads, make_chat, url
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import LONG, eventually

__all__ = ["make_chat", "url"]

Make = Callable[..., WSChat]
shared = pytest.mark.parametrize("url", ["sqlite", "redis"], indirect=True)
stored = pytest.mark.parametrize("url", ["memory", "sqlite", "redis"], indirect=True)
in_memory = pytest.mark.parametrize("url", ["memory"], indirect=True)


class Work:
    """What runs until it is let go."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.go = threading.Event()

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.calls.append((args, kwargs))
        assert self.go.wait(LONG)


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.go.set()


def start(chat: WSChat, *args: Any, **options: Any) -> BackgroundTask:
    task = chat.start_background_task(*args, **options)
    assert task is not None
    return task


# -- one


@in_memory
def test_it_runs_beside_its_caller_in_a_context_of_its_own(make_chat: Make) -> None:
    chat = make_chat()
    app = chat._app()
    found: list[Any] = []
    torn: list[Any] = []
    app.teardown_appcontext(lambda error: torn.append(error))

    def look(*args: Any, **kwargs: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        found.append((current_app.name, args, kwargs, "user" in g))
        found.append(flask.has_request_context())
        g.user = "of the task"

    with app.test_request_context("/"):
        g.user = "of the request"
        task = start(chat, look, 1, "b", c=3)
        assert task.wait(LONG) and not task.running and task.name is None
        assert g.user == "of the request"
    assert found == [(app.name, (1, "b"), {"c": 3}, False), False]
    assert torn == [None, None]  # the request's, too


@in_memory
def test_its_end_may_be_waited_for_by_many(make_chat: Make, work: Work) -> None:
    task = start(make_chat(), work)
    eventually(lambda: work.calls)
    assert task.running and not task.wait(0.01) and not task.wait(0)
    ends: list[bool] = []
    threads = [threading.Thread(target=lambda: ends.append(task.wait())) for _ in "abc"]
    for thread in threads:
        thread.start()
    work.go.set()
    for thread in threads:
        thread.join()
    assert ends == [True] * 3 and task.wait() and task.wait(0) and not task.running


@in_memory
def test_an_error_in_it_is_told_as_one_in_a_view(
    make_chat: Make, caplog: pytest.LogCaptureFixture
) -> None:
    chat = make_chat()
    told: list[BaseException] = []
    torn: list[BaseException | None] = []

    def hear(app: Flask, exception: BaseException) -> None:
        told.append(exception)

    got_request_exception.connect(hear, chat._app())
    chat._app().teardown_appcontext(torn.append)

    def fail(error: type[BaseException]) -> None:
        raise error("the application's own")

    for error in (LookupError, KeyboardInterrupt, SystemExit):
        assert start(chat, fail, error).wait(LONG)
    assert start(chat, fail, LookupError, name="nightly").wait(LONG)
    lazy: Any = functools.partial(lambda: (x for x in "abc"))
    assert start(chat, lazy).wait(LONG)  # which nobody could know before
    kinds = [LookupError, KeyboardInterrupt, LookupError, TypeError]
    assert list(map(type, told)) == kinds
    assert list(map(type, torn)) == [*kinds[:2], SystemExit, *kinds[2:]]
    words = [record.getMessage() for record in caplog.records]
    assert "Exception in the background task" in words[0] and "fail" in words[0]
    assert "Exception in the background task nightly" in words[2]


async def forever() -> None: ...


def each() -> Iterator[int]:
    yield 1


@in_memory
@pytest.mark.parametrize(
    ("function", "options", "error", "words"),
    [
        (forever, {}, TypeError, "forever is async"),
        (each, {}, TypeError, "each has a yield"),
        (None, {}, TypeError, "give the function itself"),
        ("work", {}, TypeError, "give the function itself"),
        (print, {"standby": True}, ValueError, "standby is for a task with a name"),
        (print, {"name": "a", "standby": 1}, TypeError, "standby is True or False"),
        (print, {"name": ""}, ValueError, "a task's name"),
        (print, {"name": b"a"}, TypeError, "a task's name"),
        (print, {"name": "a\nb"}, ValueError, "a task's name"),
    ],
)
def test_what_cannot_run_is_refused(
    make_chat: Make, function: Any, options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make_chat().start_background_task(function, **options)


@in_memory
def test_where_there_is_no_thread_the_name_is_free(
    make_chat: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, ran = make_chat(), []

    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        for options in ({}, {"name": "a"}, {"name": "b", "standby": True}):
            with pytest.raises(OSError, match="ulimit"):
                chat.start_background_task(print, **options)
    for name in "ab":
        assert start(chat, lambda: ran.append(1), name=name).wait(LONG)
    assert ran == [1, 1]


def test_which_app_has_to_be_known(work: Work) -> None:
    one, other = Flask("one"), Flask("other")
    chat = WSChat()
    with pytest.raises(RuntimeError, match="which app"):
        chat.start_background_task(work)
    chat.init_app(one)
    chat.init_app(other)
    with pytest.raises(RuntimeError, match="which app"):
        chat.start_background_task(work)
    names: list[str] = []
    with other.app_context():
        assert start(chat, lambda: names.append(current_app.name)).wait(LONG)
    assert names == ["other"]


# -- one of all


@stored
def test_of_a_name_one_runs_at_a_time(make_chat: Make, url: str, work: Work) -> None:
    here = make_chat()
    there = here if url == "memory://" else make_chat()
    started: list[BackgroundTask | None] = []
    in_threads(
        *[
            lambda chat=chat: started.append(
                chat.start_background_task(work, name="work")
            )
            for chat in (here, there) * 5
        ]
    )
    (task,) = [each for each in started if each is not None]
    for chat in (here, there):
        assert chat.start_background_task(work, name="work") is None
        assert start(chat, print, name=f"another {id(chat)}").wait(LONG)
    eventually(lambda: work.calls)
    work.go.set()
    assert task.wait(LONG) and len(work.calls) == 1
    # The name is free when it is over, wherever it ran.
    for chat in (there, here):
        assert start(chat, work, name="work").wait(LONG)


@shared
def test_one_in_standby_goes_on_where_the_other_ends(make_chat: Make) -> None:
    fast = {"PING_INTERVAL": 0.5, "PING_TIMEOUT": 0.5}
    here, there = make_chat(**fast), make_chat(**fast)
    first, second = Work(), Work()
    one = start(here, first, name="work", standby=True)
    eventually(lambda: one.running)
    two = start(there, second, name="work", standby=True)
    # In a process it stands by once, for whoever asks.
    assert there.start_background_task(second, name="work", standby=True) is None
    assert there.start_background_task(second, name="work") is None
    assert not two.wait(1.5) and not two.running and not second.calls  # it is renewed
    first.go.set()
    eventually(lambda: two.running)
    assert one.wait(LONG) and second.calls
    second.go.set()
    assert two.wait(LONG)


@shared
def test_one_that_lost_its_name_says_so(
    make_chat: Make, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    chat = make_chat(PING_INTERVAL=0.2, PING_TIMEOUT=0.2)
    task = start(chat, work, name="work")
    backend = chat._hub().backend
    background: Background = chat._app().extensions["wschat.background"]
    backend.release("task:work", background._holder())
    assert backend.lease("task:work", "another", 60)
    eventually(lambda: "'work' runs in another process, too" in caplog.text)
    work.go.set()
    assert task.wait(LONG)
    assert not backend.lease("task:work", "a third", 60)  # it is the other's


FAST = {f"TEST_WSCHAT_PING_{name}": "0.5" for name in ("INTERVAL", "TIMEOUT")}
"""Who is killed has its names for 0.75 s; those in standby find it within a second."""


@pytest.fixture
def run(url: str, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start the program with a background task."""
    programs: list[Process] = []

    def run(how: str, *, forked: str = "plain", **env: str) -> Process:
        given = {"TEST_WSCHAT_URL": url, **FAST, **env}
        command = ["-m", "tests.support.tasks", how]
        if not forked:
            command.insert(0, sys.executable)
        log = tmp_path / f"{len(programs)}.log"
        programs.append(Process(command, log, given, forked=forked))
        programs[-1].start()
        return programs[-1]

    yield run
    for program in programs:
        program.kill()


@pytest.mark.slow
@shared
@pytest.mark.timeout(60)
def test_where_a_process_is_killed_another_goes_on(
    run: Callable[..., Process],
) -> None:
    first = run("name")
    first.heard("works")
    assert "another works" in run("name").heard("another works")
    second, third = run("standby"), run("standby")
    assert LEASE + LOOK < 1
    first.kill()
    eventually(lambda: "works" in second.log + third.log, seconds=LONG)
    runs, waits = (second, third) if "works" in second.log else (third, second)
    assert runs.log.startswith(f"{runs.id} works") and waits.log == ""
    runs.end(signal.SIGTERM)
    waits.heard("works")


@pytest.mark.slow
@shared
@pytest.mark.timeout(60)
def test_a_program_may_start_one_before_it_serves(
    run: Callable[..., Process], url: str
) -> None:
    # Others would wait for half a minute for one that is started again.
    slow = dict.fromkeys(FAST, "25")
    port = free_port()
    program = run("serve", forked="", PORT=str(port), **slow)
    program.await_port(port)
    with WSChat.publisher(url) as publisher:

        def works_patched() -> bool:
            return any(entry.data is True for entry in publisher.history("work"))

        eventually(works_patched, seconds=LONG / 2)
    assert program.end() == 0
    assert "without gevent's patches" not in program.log
    assert "Traceback" not in program.log and "another works" not in program.log


@shared
@pytest.mark.timeout(60)
def test_a_server_that_ends_waits_for_it(run: Callable[..., Process]) -> None:
    for seconds, standby, done in ((0.5, False, True), (9, True, False)):
        port = free_port()
        program = run("serve", forked="patched", PORT=str(port))
        program.await_port(port)
        with connect(f"ws://127.0.0.1:{port}/") as client:
            asked = {"seconds": seconds, "standby": standby}
            client.send(json.dumps({"type": "begin", "ref": 1, **asked}))
            program.heard("begun")
        assert program.end() == 0
        assert ("done" in program.log) is done
        assert "Traceback" not in program.log


@in_memory
@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_a_worker_that_ends_while_one_writes_has_no_error_to_tell(
    url: str, worker: str, tmp_path: Path
) -> None:
    port = free_port()
    options = ["-b", f"127.0.0.1:{port}", "-k", worker, "--graceful-timeout", "1"]
    command = ["-m", "gunicorn", *options, "tests.support.tasks:app"]
    env = {"TEST_WSCHAT_URL": url, "TEST_WSCHAT_DRAIN": "0.1"}
    program = Process(command, tmp_path / "log", env, forked="plain")
    program.start()
    program.await_port(port)
    with connect(f"ws://127.0.0.1:{port}/") as client:
        client.send('{"type":"grow","ref":1}')
        program.heard("begun")
    assert program.end() == 0
    assert "Worker exiting" in program.log and "Traceback" not in program.log


@in_memory
@pytest.mark.timeout(60)
def test_but_no_longer_than_for_its_connections(run: Callable[..., Process]) -> None:
    port = free_port()
    env = {"PORT": str(port), "TEST_WSCHAT_DRAIN": "0.5"}
    program = run("serve", forked="patched", **env)
    program.await_port(port)
    with connect(f"ws://127.0.0.1:{port}/") as client:
        client.send(json.dumps({"type": "begin", "ref": 1, "seconds": 2 * LONG}))
        program.heard("begun")
    assert program.end() == 0
    assert "done" not in program.log


@in_memory
def test_who_asked_for_it_is_who_asks_for_what_it_writes(
    make_chat: Make,
) -> None:
    chat = make_chat()
    asked: list[str | None] = []
    token = ASKER.set("ann")
    task = start(chat, lambda: asked.append(ASKER.get()))
    ASKER.reset(token)
    assert task.wait(LONG) and start(chat, lambda: asked.append(ASKER.get())).wait(LONG)
    assert asked == ["ann", None]
