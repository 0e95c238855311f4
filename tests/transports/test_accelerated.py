"""The C twins of the queue and its flush, and all of it without them."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flask_wschat.codec import accelerated as codec_choice
from flask_wschat.transports import accelerated
from flask_wschat.transports import queue as in_python
from flask_wschat.transports.accelerated import flush_ready
from flask_wschat.transports.outbox import BATCH, Outbox

pytestmark = pytest.mark.skipif(
    not accelerated.ACCELERATED,
    reason="the C queue is not built: that takes a compiler and Python's headers",
)
Pair = tuple[Outbox, socket.socket]


@pytest.fixture
def pairs() -> list[Pair]:
    """Queues over sockets, each with its other end."""
    made = []
    for _ in range(20):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        queue = Outbox(1 << 20, "close")
        queue.fd = ours.detach()
        queue.flushing = True
        theirs.setblocking(False)
        made.append((queue, theirs))
    return made


@pytest.fixture(autouse=True)
def closed_in_the_end(pairs: list[Pair]) -> object:
    yield
    for queue, theirs in pairs:
        os.close(queue.fd)
        theirs.close()
    return None


def test_it_is_built_where_it_must_be() -> None:
    assert accelerated.ACCELERATED
    assert Outbox.__mro__[1].__module__ == "flask_wschat.transports._speedups"


@pytest.mark.parametrize("wanted", ["c", "python"])
def test_the_choice_is_the_codecs(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        if wanted == "python":
            patch.setenv("WSCHAT_PUREPYTHON", "1")
        else:
            patch.delenv("WSCHAT_PUREPYTHON", raising=False)
        for each in (accelerated, codec_choice):
            choice = importlib.reload(each)
            assert choice.ACCELERATED is (wanted == "c")
        assert (accelerated.Queue is in_python.Queue) is (wanted == "python")
    importlib.reload(accelerated)
    importlib.reload(codec_choice)


@pytest.mark.parametrize("frames", [[b"one"], [b"one", b"two", b"x" * 1000]])
def test_what_is_ready_leaves(pairs: list[Pair], frames: list[bytes]) -> None:
    queues = []
    for number in range(600):  # more than are sent at once, over as few sockets
        queue = Outbox(1 << 20, "close")
        queue.fd = pairs[number % len(pairs)][0].fd
        queue.flushing = True
        for frame in frames:
            queue.push(frame)
        queues.append(queue)
    queues[300].push(b"for this one only")
    assert flush_ready(list(queues)) == []
    whole = b"".join(frames)
    for number, (_, theirs) in enumerate(pairs):
        expected = b"".join(
            whole + b"for this one only" * (each == 300)
            for each in range(number, len(queues), len(pairs))
        )
        assert theirs.recv(1 << 20) == expected
    for queue in queues:
        assert (queue.size, queue.frames, queue.flushing) == (0, [], False)


def test_the_rest_is_left_to_python(pairs: list[Pair]) -> None:
    (watched, _), (large, _), (partly, _), (elsewhere, _), (empty, _) = pairs[:5]
    watched.push(b"x")
    watched.watched = True
    large.push(b"x" * BATCH)
    large.push(b"x")
    partly.push(b"xy")
    partly.batch, partly.size = b"x", partly.size + 1
    elsewhere.push(b"x")
    fd, elsewhere.fd = elsewhere.fd, -1
    queues = [watched, large, partly, elsewhere, empty]
    sizes = [queue.size for queue in queues]
    assert flush_ready(list(queues)) == queues
    assert [queue.size for queue in queues] == sizes
    elsewhere.fd = fd


def test_a_full_socket_keeps_what_it_did_not_take(pairs: list[Pair]) -> None:
    queue, theirs = pairs[0]
    frame = bytes(range(256)) * 8192
    queue.push(frame)
    assert flush_ready([queue]) == [queue]
    assert 0 < queue.size < len(frame) and queue.flushing
    assert queue.frames == [] and bytes(queue.batch) == frame[-queue.size :]
    got = b""
    while queue.size:
        got += theirs.recv(1 << 20)
        queue.drain(lambda data: os.write(queue.fd, data))
    with pytest.raises(BlockingIOError):
        while True:
            got += theirs.recv(1 << 20)
    assert got == frame
    # Full from the start: nothing is taken, and nothing lost.
    with pytest.raises(BlockingIOError):
        while True:
            os.write(queue.fd, b"x" * 4096)
    queue.push(b"later")
    assert flush_ready([queue]) == [queue]
    assert queue.frames == [b"later"]


def test_a_queue_that_is_listed_twice_is_sent_once(pairs: list[Pair]) -> None:
    queue, theirs = pairs[0]
    queue.push(b"once")
    for other in flush_ready([queue, queue]):
        other.drain(lambda data: os.write(queue.fd, data))
    assert theirs.recv(100) == b"once"
    assert queue.size == 0


def test_a_dead_peer_is_left_to_python(pairs: list[Pair]) -> None:
    queue, theirs = pairs[0]
    theirs.close()
    queue.push(b"x")
    assert flush_ready([queue]) == [queue]
    with pytest.raises(BrokenPipeError):
        queue.drain(lambda data: os.write(queue.fd, data))


def test_a_finaliser_that_sends_amid_a_flush(pairs: list[Pair]) -> None:
    """What is sent are the frames, and no other bytes of the memory they are in."""
    some = pairs
    sent = [[b"%d" % number, b"x" * number] for number in range(len(some))]
    for (queue, _), frames in zip(some, sent, strict=True):
        for frame in frames:
            queue.push(frame)

    kept: list[object] = []

    class Garbage:
        """Found by the garbage collector; sends, and leaves the like of itself."""

        left = 100

        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            if Garbage.left > 0:
                Garbage.left -= 1
                kept.extend([] for _ in range(9))  # that counts
                for (queue, _), frames in zip(some, sent, strict=True):
                    frames.append(b"late")
                    queue.push(b"late")
                Garbage()

    queues = [queue for queue, _ in some]
    thresholds = gc.get_threshold()
    gc.collect()
    Garbage()
    gc.set_threshold(1)
    try:
        others = flush_ready(queues)
    finally:
        gc.set_threshold(*thresholds)
        Garbage.left = 0
        gc.collect()
    assert gc.isenabled()
    assert set(others) <= set(queues)
    for (queue, theirs), frames in zip(some, sent, strict=True):
        queue.drain(functools.partial(os.write, queue.fd))
        assert theirs.recv(1 << 16) == b"".join(frames)
        assert (queue.size, queue.frames) == (0, [])


def test_frames_of_a_subclass_are_left_to_python(pairs: list[Pair]) -> None:
    class Frame(bytes):
        pass

    queue, _ = pairs[0]
    queue.push(Frame(b"x"))
    assert flush_ready([queue]) == [queue]
    assert queue.frames == [b"x"]


def test_the_list_of_frames_stays(pairs: list[Pair]) -> None:
    queue, _ = pairs[0]
    with pytest.raises(AttributeError):
        queue.frames = None  # type: ignore[assignment]


def test_wrong_types_are_errors() -> None:
    for wrong in ((), [object()], [None]):
        with pytest.raises(TypeError):
            flush_ready(wrong)  # type: ignore[arg-type, misc]


@pytest.fixture(params=["python", "c"])
def twin(request: pytest.FixtureRequest) -> Any:
    """Both, as they are to do the same."""
    return accelerated if request.param == "c" else in_python


def test_a_broadcast_is_added_to_all_that_have_room(twin: Any) -> None:
    queues = [twin.Queue(10, twin.Allowance()) for _ in range(5)]
    unflushed: list[Any] = []
    assert queues[0].add(b"x" * 9, unflushed) == 2
    assert queues[1].add(b"x" * 20, unflushed) == 1
    assert queues[0].add(b"y", unflushed) == 1
    assert twin.add_to_all(queues, b"all", unflushed) == queues[:2]
    assert [each.size for each in queues] == [10, 20, 3, 3, 3]
    assert unflushed == queues
    assert all(each.flushing for each in queues)
    queues[0].limit = -1
    assert queues[0].add(b"", unflushed) == 0


def test_what_is_held_is_counted_once(twin: Any) -> None:
    """All of a frame for who has it alone, else a part; and a place in each queue."""
    queues = [twin.Queue(1 << 30, twin.Allowance()) for _ in range(10)]
    assert twin.held(queues) == [0] * 10
    more, place = in_python.FRAME_COST - in_python.PLACE, in_python.PLACE
    for _ in range(3):
        assert not twin.add_to_all(queues, bytes(9_944), [])
    assert twin.held(queues) == [3 * ((9_944 + more) // 10 + place)] * 10
    queues[0].add(bytes(100), [])
    assert twin.held(queues)[0] - twin.held(queues)[1] == 100 + more + place
    whole = bytes(50_000)
    for queue in queues[5:]:
        queue.batch = memoryview(whole)[40_000:]
        queue.size += 10_000
    del whole
    assert twin.held(queues)[5] - twin.held(queues)[4] == (50_000 + more) // 5
    queues[4].batch = bytes(777)
    queues[4].size += 777
    assert twin.held(queues)[4] - twin.held(queues)[3] == 777 + more


def test_a_python_that_counts_no_references_takes_all_for_unshared() -> None:
    """PyPy, for one: there is no C twin for it, either."""
    code = (
        "import sys; del sys.getrefcount\n"
        "from flask_wschat.transports.queue import Allowance, Queue, add_to_all, held\n"
        "queues = [Queue(1 << 30, Allowance()) for _ in range(2)]\n"
        "add_to_all(queues, bytes(936), [])\n"
        "queues[1].batch = memoryview(bytes(944))[900:]; queues[1].size += 44\n"
        "print(held(queues))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout == "[1000, 2000]\n", said.stderr


def test_what_many_frames_hold_is_known_by_a_part_of_them(twin: Any) -> None:
    mine, theirs = (twin.Queue(1 << 30, twin.Allowance()) for _ in range(2))
    for number in range(50_000):
        mine.add(b"%099d" % number, [])
        twin.add_to_all([mine, theirs], b"%099d" % number, [])
    place, frame = in_python.PLACE, 99 + in_python.FRAME_COST - in_python.PLACE
    in_all = 100_000 * frame + 150_000 * place
    assert sum(twin.held([mine, theirs])) == pytest.approx(in_all, rel=0.05)


def test_who_fills_a_queue_takes_from_the_allowance(twin: Any) -> None:
    """All that it allows is taken before anybody has to look, and one frame."""
    allowance = twin.Allowance(1000)
    queue, cost = twin.Queue(1 << 20, allowance), in_python.FRAME_COST
    assert queue.allowance is allowance
    assert queue.add(bytes(100), [])
    assert allowance.left == 900 - cost
    assert queue.add(bytes(10_000), [])
    assert allowance.left < 0
    assert queue.add(b"x", []) == 0
    assert len(queue.frames) == 2
    assert not twin.add_to_all([queue], b"x", [])  # its caller has looked
    allowance.left = 1000
    others = [twin.Queue(1 << 20, allowance) for _ in range(10)]
    assert not twin.add_to_all(others, bytes(500), [])
    assert allowance.left == 500 - 10 * in_python.PLACE
    assert not twin.add_to_all([], bytes(500), [])
    allowance.left = 0
    assert queue.add(b"x", []) == 1


def test_another_thread_adds_nothing(twin: Any) -> None:
    mine = twin.Queue(10, twin.Allowance())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(mine.add, b"x", []).result(5) == 0
    assert mine.frames == []


def test_receive_is_as_recv(twin: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            twin.receive(ours.fileno(), 10)
        theirs.sendall(b"x" * 15)
        assert twin.receive(ours.fileno(), 10) == b"x" * 10
        assert twin.receive(ours.fileno(), 1 << 20) == b"x" * 5
        theirs.close()
        assert twin.receive(ours.fileno(), 10) == b""
    with pytest.raises(OSError, match="Bad file"):
        twin.receive(ours.fileno(), 10)


@pytest.mark.parametrize("size", [-1, -(1 << 62)])
def test_receive_takes_no_negative_size(twin: Any, size: int) -> None:
    """As the size of a buffer it would be almost all the memory there is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x" * 100_000)
        with pytest.raises(OSError, match="Invalid argument"):
            twin.receive(ours.fileno(), size)
        assert len(twin.receive(ours.fileno(), 1 << 20)) <= in_python.READ_SIZE


def test_receive_knows_no_large_descriptor() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x")
        with pytest.raises(OSError, match="Bad file"):
            accelerated.receive(ours.fileno() + (1 << 32), 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda: accelerated.receive("x", 1),  # type: ignore[arg-type]
        lambda: accelerated.Queue(1, accelerated.Allowance()).add("x", []),  # type: ignore[arg-type]
        lambda: accelerated.Queue(1, None),  # type: ignore[arg-type]
        lambda: accelerated.Queue(1),  # type: ignore[call-arg]
        lambda: accelerated.Allowance("x"),  # type: ignore[arg-type]
        lambda: accelerated.held([object()]),  # type: ignore[type-var]
        lambda: accelerated.held(()),  # type: ignore[arg-type]
        lambda: accelerated.add_to_all([object()], b"x", []),  # type: ignore[type-var]
        lambda: accelerated.add_to_all((), b"x", []),  # type: ignore[arg-type]
    ],
)
def test_c_checks_what_it_is_given(call: Any) -> None:
    with pytest.raises(TypeError):
        call()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_everything_holds_without_the_accelerators() -> None:
    tests = Path(__file__).parents[1]
    paths = [tests / "transports", tests / "test_websocket.py", tests / "test_hub.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "not accelerat", *map(str, paths)],
        env={**os.environ, "WSCHAT_PUREPYTHON": "1", "INTERLEAVINGS": "5"},
        capture_output=True,
        text=True,
        cwd=tests.parent,
    )
    assert done.returncode == 0, done.stdout
