"""What the tests stand on: where it is, and that it fails as it should."""

from __future__ import annotations

import ast
import json
import signal
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.processes import ROOT, Process
from tests.support.waiting import LONG, eventually
from tools import again

TESTS = ROOT / "tests"


def imported(path: Path) -> set[str]:
    """Return the last names of the modules that a file imports from."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").rpartition(".")[2])
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name.rpartition(".")[2] for name in node.names}
    return found


def test_what_several_tests_need_is_in_no_test() -> None:
    """Nor in a ``conftest.py``, which has fixtures only."""
    tests = {path.stem for path in TESTS.rglob("test_*.py")} | {"conftest"}
    assert "test_support" in tests
    for path in TESTS.rglob("*.py"):
        assert not imported(path) & tests, path


def test_ports_are_given_once() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


def test_a_program_that_ends_early_says_why(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", "print('so'); 1 / 0"], tmp_path / "log")
    process.start()
    with pytest.raises(AssertionError, match=r"it ended:\s+so\s(?s:.)*ZeroDivision"):
        process.heard("never")
    assert process.end() == 1


def test_a_program_that_does_not_end_is_made_to(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(15, signal.SIG_IGN); print('on'); signal.pause()"
    )
    process = Process([sys.executable, "-c", code], tmp_path / "log")
    process.start()
    process.heard("on")
    process.signal(signal.SIGTERM)
    with pytest.raises(AssertionError, match="it does not end:\non"):
        process.wait(0.1)
    process.kill()
    assert not process.running


LEAVES = """
import pytest
from tests.conftest import all_stopped
from flask import Flask
from flask_wschat import WSChat

@pytest.mark.parametrize("end", [True, False])
def test_it(tmp_path, end):
    app = Flask("an_app")
    app.config["WSCHAT_URL"] = f"sqlite:///{tmp_path}/chat.db"
    chat = WSChat(app)
    chat.broadcast("x")
    if end:
        app.extensions["wschat.hub"].stop()
"""


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_who_leaves_a_backend_behind_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(LEAVES)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(passed=2, errors=1)
    done.stdout.fnmatch_lines(["ERROR *test_it?False? *"])


SLOW = """
import threading

import gevent
import pytest

import tests.conftest  # which lets gevent raise it

@pytest.mark.timeout(0.5)
@pytest.mark.parametrize("wait", [
    lambda: gevent.sleep(60),
    lambda: threading.Event().wait(60),
])
def test_slow(wait):
    wait()

def test_next():
    assert gevent.spawn(lambda: 1).get() == 1
"""


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_what_takes_too_long_fails_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(SLOW)
    options = ("-p", "no:cacheprovider", "-o", "timeout_method=signal")
    done = pytester.runpytest_subprocess(*options)
    done.assert_outcomes(passed=1, failed=2)


RACES = """
from pathlib import Path

def test_race(): pass
def test_wrong(): assert not Path("wrong").exists()
def test_other(): Path("ran").touch()
"""


def failed(*names: str) -> None:
    """Note them as pytest does."""
    again.FAILED.parent.mkdir(parents=True)
    again.FAILED.write_text(json.dumps(dict.fromkeys(names, True)))


def test_the_few_that_failed_are_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("test_races.py").write_text(RACES)
    failed("test_races.py::test_race", "test_races.py::test_wrong")
    assert again.main(1) == 0
    told = capfd.readouterr().out
    assert "2 passed" in told
    assert "passed alone: test_races.py::test_race, test_races.py::test_wr" in told
    Path("wrong").touch()
    assert again.main(1) == 1
    assert "passed alone" not in capfd.readouterr().out
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("status", "names"),
    [
        (1, []),
        (1, ["a.py::b", "a.py::c", "a.py::d", "a.py::e"]),
        (2, ["a.py::b"]),  # interrupted: nobody knows of the others
    ],
)
def test_where_more_may_be_wrong_nothing_is_run_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    status: int,
    names: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    failed(*names)
    assert again.main(status) == status
    assert capfd.readouterr().out == ""


def test_forks_end_with_who_has_begun_them(tmp_path: Path) -> None:
    """Though it is killed, or Ctrl-C reaches all of them."""
    (tmp_path / "waits.py").write_text("import signal; print('on'); signal.pause()")
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from tests.support.processes import Process;"
        "fork = Process(['waits.py'], Path('log'), cwd=Path('.'), forked='plain');"
        "fork.start(); fork.heard('on'); print('number', fork.id);"
        "os.kill(fork._process._parent._process.pid, signal.SIGINT);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    env = {"PYTHONPATH": str(ROOT)}
    process = Process(
        [sys.executable, "-c", code], tmp_path / "said", env, cwd=tmp_path
    )
    process.start()
    assert process.wait() == -signal.SIGKILL
    number = int(process.log.split("number")[1])
    eventually(lambda: not Path(f"/proc/{number}").exists(), "the fork ends", LONG)


CRASHES = """
import os
import pytest

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return []

@pytest.fixture
def torn():
    yield
    raise LookupError("torn down")

def test_first(shared):
    shared.append(1)

def test_second(shared):
    assert shared == [1]

def test_fails():
    print("said before")
    assert 1 == 2

def test_ends():
    os._exit(3)

def test_goes_on(tmp_path):
    pass

def test_torn(torn):
    pass
"""


@pytest.mark.slow
def test_several_at_a_time_lose_no_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(test_one=CRASHES, test_other=CRASHES)
    options = ("-p", "tests.support.parallel", "--jobs", "3", "-rE")
    done = pytester.runpytest_subprocess(*options)
    done.assert_outcomes(passed=8, failed=4, errors=2)
    done.stdout.fnmatch_lines_random(["the process ended by 3", "said before"])
    last = Path(pytester.path / ".pytest_cache/v/cache/lastfailed").read_text()
    assert len(json.loads(last)) == 6
