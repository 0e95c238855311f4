"""Clients that make rooms and inboxes, which nobody asked for, as fast as they can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flask_wschat import ChatListener, WSChat
from tests.support.following import Quick, make_chat, url
from tests.support.live import Serve

__all__ = ["make_chat", "url"]


class Few(ChatListener):
    new_rooms = (0.001, 5)


BUSY = {"RATE_LIMIT": (10_000, 10_000)}


def test_new_rooms_have_a_limit_and_those_there_are_none(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(Few, **BUSY)
    chat.broadcast("said", room="old")
    server = serve(chat._app())
    ben = Quick(server, "ben")
    ben.ask("join", room="ben's")
    ann, tab = Quick(server, "ann"), Quick(server, "ann")
    assert ann.hello["limits"]["new_rooms"] == {"per_second": 0.001, "burst": 5}
    for number in range(5):
        (ann, tab)[number % 2].ask("join", room=f"{number}")
    for peer in (ann, tab):
        error = peer.fail("join", room="one more")
        assert error["code"] == "rate_limited" and 900 < error["retry_after"] <= 1000
    assert chat.online("one more") == []
    ann.ask("join", room="old")
    ann.ask("join", room="ben's")
    tab.ask("join", room="0")  # where she is already, by another tab
    ann.ask("join", room="1")
    assert ann.fail("tell", to="a stranger", data=1, mid="1")["code"] == "rate_limited"
    ben.ask("join", room="another user's")
    assert len(chat._hub().backend.history("room:one more").entries) == 0


def test_new_inboxes_count_once(make_chat: Callable[..., WSChat], serve: Serve) -> None:
    server = serve(make_chat(Few, **BUSY)._app())
    ann = Quick(server, "ann")
    for mid in range(20):
        ann.ask("tell", to="ben", data=1, mid=f"{mid}")
    for to in "cdef":
        ann.ask("tell", to=to, data=1, mid=f"to {to}")
        ann.ask("tell", to=to, data=1, mid=f"to {to}")  # repeated
    assert ann.fail("tell", to="g", data=1, mid="g")["code"] == "rate_limited"
    assert ann.fail("join", room="g")["code"] == "rate_limited"
    ann.ask("tell", to="ben", data=1, mid="last")


def test_another_tab_of_a_user_makes_no_room(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    server = serve(make_chat(Few, **BUSY)._app())
    tabs = [Quick(server, "ann") for _ in range(4)]
    for room in "abcde":
        for tab in tabs:
            tab.ask("join", room=room)
    assert tabs[0].fail("join", room="f")["code"] == "rate_limited"


@pytest.mark.parametrize("url", ["memory"], indirect=True)
def test_who_goes_on_within_the_limit_of_requests_is_refused_and_not_closed(
    make_chat: Callable[..., WSChat], serve: Serve
) -> None:
    chat = make_chat(Few, **BUSY, BYTE_LIMIT=(0.001, 10))
    chat.broadcast("said", room="old")
    ann = Quick(serve(chat._app()), "ann")
    ann.ask("join", room="old")
    for number in range(5):
        ann.ask("join", room=f"{number}")
    ann.ask("say", room="old", data="12345678", mid="0")
    for number in range(100):
        error = ann.fail("join", room=f"room {number}")
        assert error["code"] == "rate_limited"
        error = ann.fail("say", room="old", data="12345678", mid=f"again {number}")
        assert error["code"] == "rate_limited"
    ann.ask("ping")


@pytest.mark.parametrize("url", ["memory"], indirect=True)
@pytest.mark.parametrize("config", [{"RATE_LIMIT": None}, {"HISTORY_SIZE": 0}])
def test_without_a_limit(
    make_chat: Callable[..., WSChat], serve: Serve, config: Any
) -> None:
    ann = Quick(serve(make_chat(Few, **config)._app()), "ann")
    assert ann.hello["limits"]["new_rooms"] is None
    for number in range(20):
        ann.ask("join", room=f"{number}")


@pytest.mark.parametrize("value", [0, 5, (1,), (0, 5), (1, 2.5), "1/s", (True, 1)])
def test_what_is_no_limit_is_told_where_it_stands(value: Any) -> None:
    with pytest.raises(ValueError, match="new_rooms is"):
        type("Wrong", (ChatListener,), {"new_rooms": value})
