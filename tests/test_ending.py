"""How the program ends: what tells it to, and what does not."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from flask_wschat.transports.ending import is_order


@pytest.fixture
def stops() -> Iterator[None]:
    """A program that ends when told to, as many do."""

    def stop(number: int, frame: object) -> None:
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


def raised_by_a_signal() -> BaseException:
    with pytest.raises(BaseException) as caught:
        signal.raise_signal(signal.SIGTERM)
    return caught.value


def test_what_a_signals_handler_raises_is_an_order(stops: None) -> None:
    assert is_order(raised_by_a_signal())
    assert is_order(KeyboardInterrupt())


def test_the_same_raised_by_other_code_is_a_fault(stops: None) -> None:
    with pytest.raises(SystemExit) as caught:
        sys.exit(0)
    assert not is_order(caught.value)
    assert not is_order(SystemExit())
    assert not is_order(TimeoutError())


@pytest.mark.skipif(sys.platform != "linux", reason="needs to know the main thread")
def test_no_thread_but_the_main_one_has_orders() -> None:
    assert threading.get_native_id() == os.getpid()
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(is_order(KeyboardInterrupt())))
    thread.start()
    thread.join()
    assert said == [False]
