"""``chat.stats()``: what is counted, against what was done."""

from __future__ import annotations

import json
import mmap
import os
from typing import Any

import pytest

from flask_wschat.hub.figures import (
    CLOSED,
    FIGURES,
    PLACES,
    REFUSED,
    SIZE,
    Figures,
    add_up,
    read,
)
from tests.support.in_memory import another, open_pair


def test_each_figure_has_its_places() -> None:
    ends = [PLACES[figure.name] + figure.places for figure in FIGURES]
    assert list(PLACES.values()) == [0, *ends[:-1]]
    assert ends[-1] * 8 == SIZE


def test_a_snapshot_is_plain_and_whole() -> None:
    figures = Figures()
    found = figures.snapshot()
    assert found.keys() == {figure.name for figure in FIGURES}
    assert json.loads(json.dumps(found)) == found
    assert found["backend_latency"] is None
    assert found["queue_bytes"]["buckets"][-1] == ["+Inf", 0]
    said = figures.stats()
    assert said["worker"].endswith(f":{os.getpid()}")
    assert found.items() <= said.items() or found["uptime"] >= 0


@pytest.mark.parametrize("code", [*CLOSED, "3001", "4999", "1015", "999"])
def test_each_close_code_is_counted_once(code: str) -> None:
    figures = Figures()
    label = {"3001": "3xxx", "4999": "4xxx", "1015": "other", "999": "other"}
    number = {"3xxx": 3500, "4xxx": 4000, "other": 2000}.get(code) or int(code)
    figures.closed(number, 0)
    assert figures.snapshot()["closed"] == {label.get(code, code): 1}


@pytest.mark.parametrize("status", [*REFUSED, "418", "511", "308", "200", ""])
def test_each_refusal_is_counted_once(status: str) -> None:
    figures = Figures()
    label = {"418": "4xx", "511": "5xx"}.get(status, status)
    line = {"4xx": "499 Strange", "5xx": "599"}.get(status, f"{status} Because")
    figures.refused(line)
    counted = {label: 1} if label in REFUSED else {}
    assert figures.snapshot()["refused"] == counted


def test_figures_move_and_are_read_there() -> None:
    figures = Figures()
    figures.add("published", 3)
    shared = bytearray(SIZE + 64)
    figures.move_to(memoryview(shared)[64:])
    figures.add("published", 4)
    figures.counts.took(PLACES["backend_seconds"], 0.0)
    assert figures["published"] == 7
    there = read(memoryview(shared)[64:])
    assert there["published"] == 7
    assert there["backend_seconds"]["count"] == 1
    assert there["backend_up"] is True
    for wrong in (bytearray(SIZE - 8), bytes(SIZE), bytearray(SIZE + 1)):
        with pytest.raises(ValueError):
            figures.move_to(wrong)
    figures.begin_anew()
    assert figures["published"] == 0
    assert read(memoryview(shared)[64:])["published"] == 7


def test_several_are_added_up() -> None:
    ours, theirs = Figures(), Figures()
    for figures, count in ((ours, 2), (theirs, 3)):
        figures.add("deliveries", count)
        figures.closed(1000, count)
        figures.queues([2000] * count, 10)
    theirs.closed(1006, 3)
    theirs.set("backend_up", 0)
    total = add_up([read(each._memory) for each in (ours, theirs)])
    assert total["deliveries"] == 5
    assert total["closed"] == {"1000": 2, "1006": 1}
    assert total["connections"] == 5
    assert total["backend_up"] is False
    assert total["queue_bytes"]["sum"] == 10_000
    assert total["queue_bytes"]["buckets"][:3] == [[0, 15], [1024, 15], [4096, 20]]


def test_messages_of_one_connection_are_counted() -> None:
    ws, peer, hub = open_pair()
    peer.send("one", "two")
    ws.send("three")
    ws.send(b"four" * 1000)
    _, other = another(hub)
    found = hub.figures.snapshot()
    assert found["messages_in"] == 2
    assert found["messages_out"] == 2
    assert found["opened"] == found["connections"] == 2
    other.close(4001)
    peer.close()
    found = hub.figures.snapshot()
    assert found["connections"] == 0
    assert found["closed"] == {"1000": 1, "4xxx": 1}


def test_a_fork_begins_with_zeros() -> None:
    figures = Figures()
    shared = mmap.mmap(-1, SIZE)  # which the child has as well
    figures.move_to(shared)
    figures.add("errors")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        figures.add("dropped", 2)
        os.write(writing, json.dumps(figures.snapshot()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        found = json.load(said)
    assert os.waitpid(child, 0)[1] == 0
    assert (found["errors"], found["dropped"]) == (0, 2)
    assert (figures["errors"], figures["dropped"]) == (1, 0)
    figures.begin_anew()
    shared.close()


def test_those_of_a_loop_that_died_have_ended() -> None:
    _, peer, hub = open_pair()
    another(hub, "ann")
    peer.close(1001)
    assert hub.figures.snapshot()["users"] == 1
    hub.forget_all()
    found = hub.figures.snapshot()
    assert found["closed"] == {"1001": 1, "1006": 1}
    assert (found["opened"], found["connections"], found["users"]) == (2, 0, 0)


def test_gauges_are_those_of_this_process() -> None:
    """A fork knows of its parent's connections, until one comes to it."""
    _, _, hub = open_pair()
    another(hub, "ann")
    figures = hub.figures
    assert figures.snapshot()["connections"] == 2
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        hub.forget_all()
        found = figures.snapshot()
        os.write(writing, json.dumps([found["connections"], found["closed"]]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        assert json.load(said) == [0, {}]
    assert os.waitpid(child, 0)[1] == 0
    assert figures.snapshot()["connections"] == 2


def test_what_a_process_has_planned_its_child_does_not_do() -> None:
    """A fork of gevent's has its parent's timers."""
    _, _, hub = open_pair()
    loop: Any = hub.home.loop
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        for _, callback in list(loop.timers):
            callback()
        lags = hub.figures.snapshot()["lag_seconds"]  # one is noted by each sweep
        os.write(writing, b"%d" % lags["count"])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as said:
        assert said.read() == b"0"
    assert os.waitpid(child, 0)[1] == 0
    for _, callback in list(loop.timers):
        callback()
    assert hub.figures.snapshot()["lag_seconds"]["count"] == 1
