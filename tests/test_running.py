"""``chat.run``: patched by itself, in debug mode, stopped, and what it says."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_wschat.client import connect
from flask_wschat.errors import ConnectionClosed
from flask_wschat.running.patching import STARTED_AGAIN, Program, find_program
from flask_wschat.running.watchdog import to_blame
from tests.support.live import Serve
from tests.support.processes import Process
from tests.support.waiting import LONG, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

DEADLINE = LONG
_numbers = itertools.count(1)
PROGRAM = """
import sys
import threading
import time
from beside import GREETING
from flask import Flask, render_template_string
from flask_wschat import WSChat

app = Flask(__name__)
chat = WSChat(app)

@chat.route("/waits")
def waits(ws):
    ws.send("begun")
    time.sleep(60)  # not of gevent's own accord

@chat.route("/spins")
def spins(ws):
    ws.send("begun")
    until = time.perf_counter() + 1.5
    while time.perf_counter() < until: pass  # busy
    ws.send("done")

@chat.route("/asyncio")
def runs(ws):
    import asyncio
    import gevent
    async def main():
        await asyncio.sleep(0.5)
        return "done"
    ws.send("begun")
    ws.send(gevent.get_hub().threadpool.apply(lambda: asyncio.run(main())))

@chat.listener("/about")
class About(__import__("flask_wschat").Listener):
    def on_open(self, ws):
        import gevent.monkey
        patched = gevent.monkey.is_module_patched("time")
        main = sys.modules["__main__"]
        ws.send_json({
            "patched": patched, "argv": sys.argv, "path": sys.path[0],
            "greeting": GREETING, "name": main.__name__, "root": app.root_path,
            "file": getattr(main, "__file__", None), "package": main.__package__,
            "flags": [sys.flags.optimize, sys.flags.dev_mode, sys.warnoptions],
            "names": sorted({"annotations", "monkey"} & set(vars(main))),
        })

@app.get("/slow")
def slow():
    def parts():
        yield "begun"
        time.sleep(0.5)
        yield ", done"
    return parts()

@app.get("/fails")
def fails():
    return 1 / 0

def main(**options):
    chat.run(app, port=0, **options)
"""
RUN = '\nif __name__ == "__main__":\n    main({})\n'
MESSAGE = "serving without gevent's patches, as "


class Running(Process):
    """A program that serves, and what it prints."""

    def __init__(
        self, command: list[str], folder: Path, env: dict[str, str], forked: str = ""
    ) -> None:
        names = [name for name in os.environ if name.startswith("FLASK_")]
        log = folder / f"log-{next(_numbers)}"
        given = {**dict.fromkeys(names), **env}
        super().__init__(
            command, log, given, cwd=folder, stdin=subprocess.PIPE, forked=forked
        )
        self.start()

    @property
    def lines(self) -> list[str]:
        return self.log.splitlines(keepends=True)

    def printed(self, words: str) -> bool:
        return words in self.log

    def eventually(self, condition: Callable[[], object]) -> None:
        eventually(condition, lambda: self.log, DEADLINE)

    def url(self, path: str, start: int = 1) -> str:
        """Return the address of ``path``, after so many starts."""

        def found() -> list[str]:
            return re.findall(r"Serving on http://(\S+)", self.log)

        self.eventually(lambda: len(found()) >= start)
        return found()[start - 1] + path

    def ask(self, path: str, start: int = 1) -> dict[str, object]:
        with connect("ws://" + self.url(path, start)) as ws:
            answer: dict[str, object] = json.loads(ws.receive(DEADLINE))
            return answer


Run = Callable[..., Running]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A program in a folder with a space, and as a module of a package."""
    folder = tmp_path / "a folder"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").write_text("")
    (folder / "beside.py").write_text('GREETING = "hi"\n')
    for path in (folder / "app.py", folder / "package" / "app.py"):
        path.write_text(PROGRAM + RUN.format(""))
    return folder


@pytest.fixture
def run(folder: Path) -> Iterator[Run]:
    """Start Python with these arguments; ended after the test."""
    programs: list[Running] = []

    def start(*words: str, where: Path = folder, **env: str) -> Running:
        programs.append(Running([sys.executable, *words], where, env))
        return programs[-1]

    yield start
    for program in programs:
        program.signal(signal.SIGTERM)
        program.end(signal.SIGINT)  # a second one is at once, whatever waits


@pytest.fixture
def begun(folder: Path) -> Iterator[Run]:
    """As `run`, for tests to which it is no matter how the program was patched."""
    programs: list[Running] = []

    def start(*words: str, **env: str) -> Running:
        programs.append(Running(list(words), folder, env, "patched"))
        return programs[-1]

    yield start
    for program in programs:
        program.signal(signal.SIGTERM)
        program.end(signal.SIGINT)  # a second one is at once, whatever waits


@pytest.mark.parametrize(
    ("words", "argv", "optimize", "package"),
    [
        (["app.py"], ["app.py"], 0, None),
        (["-u", "-O", "app.py", "--x", "a b"], ["app.py", "--x", "a b"], 1, None),
        (["-m", "package.app", "-y"], ["/package/app.py", "-y"], 0, "package"),
        (["-Om", "package.app"], ["/package/app.py"], 1, "package"),
        (["-c", "import app; app.main()", "z"], ["-c", "z"], 0, None),
    ],
)
@pytest.mark.pain(8)
def test_a_view_that_waits_stops_nobody_else(
    run: Run,
    folder: Path,
    words: list[str],
    argv: list[str],
    optimize: int,
    package: str | None,
) -> None:
    dev = package is not None  # which takes twice as long
    words = ["-X", "dev"] * dev + ["-Wignore::ImportWarning", *words]
    program = run(*words, PYTHONWARNINGS="ignore::ResourceWarning")
    with connect("ws://" + program.url("/waits")) as waiting:
        assert waiting.receive(DEADLINE) == "begun"
        about = program.ask("/about")
        assert about["patched"], program.log
        assert about["greeting"] == "hi"
        assert about["name"] == "__main__"
        assert about["names"] == []
        given = about["argv"]
        assert isinstance(given, list)
        assert [given[0].removeprefix(str(folder)), *given[1:]] == argv
        flags = about["flags"]
        assert isinstance(flags, list) and flags[:2] == [optimize, dev]
        assert {"ignore::ImportWarning", "ignore::ResourceWarning"} <= set(flags[2])
        if words[-2] != "-c":
            assert about["package"] == package
        if "app.py" in words:
            assert about["root"] == about["path"] == str(folder)
            assert about["file"] == str(folder / "app.py")
    assert "Warning" not in program.log
    assert "serving without" not in program.log


def test_it_is_found_from_elsewhere(run: Run, folder: Path, tmp_path: Path) -> None:
    program = run("a folder/app.py", where=tmp_path)
    about = program.ask("/about")
    assert (about["patched"], about["path"]) == (True, str(folder))


@pytest.mark.parametrize(
    ("words", "leaves"),
    [
        ("./app.py", "nowhere"),
        ("../a folder/app.py", "first"),
        ("app.py", "first"),
        ("package/../app.py", "last"),
        ("$PWD/app.py", "last"),
        ("-m package.app", "last"),
    ],
)
def test_however_it_is_named_and_wherever_it_goes(
    run: Run, folder: Path, words: str, leaves: str
) -> None:
    """A relative step, which cannot be done twice."""
    (folder / "sub").mkdir()
    step = "__import__('os').chdir('sub')\n"
    code = step * (leaves == "first") + PROGRAM
    code += step * (leaves == "last") + RUN.format("")
    for path in (folder / "app.py", folder / "package" / "app.py"):
        path.write_text(code)
    arguments = words.split() if words[0] == "-" else [words]
    program = run(*(word.replace("$PWD", str(folder)) for word in arguments))
    assert program.ask("/about")["patched"], program.log


def test_a_module_whose_folder_was_left_at_once_stays_unpatched(
    run: Run, folder: Path
) -> None:
    code = "__import__('os').chdir('/')\n" + PROGRAM + RUN.format("")
    (folder / "package" / "app.py").write_text(code)
    program = run("-m", "package.app")
    assert program.ask("/about")["patched"] is False
    assert "no file or module that Python could run again" in program.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_a_word(
    begun: Run, folder: Path, number: signal.Signals
) -> None:
    """Ctrl-C waits a second for a view that goes on, SIGTERM until there is another."""
    (folder / "app.py").write_text(PROGRAM + RUN.format("log=None"))
    program = begun("app.py")
    with connect("ws://" + program.url("/waits")) as ws:
        assert ws.receive(DEADLINE) == "begun"
        program.signal(number)
        with pytest.raises(ConnectionClosed, match="1012"):
            ws.receive(DEADLINE)
        if number == signal.SIGTERM:
            program.signal(number)
    began = time.monotonic()
    assert program.wait() == 0
    assert time.monotonic() - began < 8  # of ten seconds
    assert "Traceback" not in program.log
    assert all(" - - [" in line for line in program.lines[1:]), program.log


def test_two_signals_at_once_say_1012_all_the_same(begun: Run) -> None:
    program = begun("app.py")
    with connect("ws://" + program.url("/waits")) as ws:
        assert ws.receive(DEADLINE) == "begun"
        program.signal(signal.SIGTERM)
        program.signal(signal.SIGINT)  # another one, as of two the same one is left
        with pytest.raises(ConnectionClosed, match="1012"):
            ws.receive(DEADLINE)
    assert program.wait() == 0


def test_a_page_that_was_asked_for_is_answered(begun: Run) -> None:
    program = begun("app.py")
    url = "http://" + program.url("/slow")
    with connect("ws://" + program.url("/waits")) as ws:
        assert ws.receive(DEADLINE) == "begun"
        with urllib.request.urlopen(url) as answer:
            assert answer.read(5) == b"begun"
            program.signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed, match="1012"):
                ws.receive(DEADLINE)
            assert answer.read() == b", done"
    program.signal(signal.SIGTERM)  # or the view would have all the time there is
    assert program.wait() == 0


@pytest.mark.parametrize("host", ["0.0.0.0", ""])
def test_where_it_listens_everywhere_a_browser_is_told_where(
    begun: Run, folder: Path, host: str
) -> None:
    """Not each of them opens 0.0.0.0."""
    (folder / "app.py").write_text(PROGRAM + RUN.format(f"host={host!r}"))
    program = begun("app.py")
    shown = program.url("")
    assert shown.startswith("0.0.0.0:")
    near = shown.replace("0.0.0.0", "127.0.0.1")
    program.eventually(lambda: len(program.lines) > 1)
    assert program.lines[1] == f" * On this machine it is http://{near}\n"
    with connect(f"ws://{near}/waits") as ws:
        assert ws.receive(DEADLINE) == "begun"


def test_an_address_in_use_is_told(begun: Run) -> None:
    port = begun("app.py").url("").rpartition(":")[2]
    program = begun("-c", f"import app; app.chat.run(app.app, port={port})")
    assert program.wait() == 1
    assert program.log.startswith(f"cannot serve on 127.0.0.1:{port}: ")
    assert program.log.endswith("Choose another port.\n")
    elsewhere = "app.chat.run(app.app, '127.0.0.1:5000')"
    program = begun("-c", f"import app; {elsewhere}")
    assert program.wait() == 1
    assert "Is this an address of this machine?" in program.log


def test_a_port_of_the_environment_is_text(run: Run, folder: Path) -> None:
    program = run("-c", "import app; app.chat.run(app.app, port='0')")
    assert program.ask("/about")["patched"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("app.app, 5000", "write chat.run(app, host, port): 5000 is no host"),
        ("app.app, port='http'", "a port is a number from 0 to 65535, unlike 'http'"),
        ("app.app, port=70000", "a port is a number from 0 to 65535, unlike 70000"),
    ],
)
def test_what_is_no_address_is_told(begun: Run, arguments: str, message: str) -> None:
    program = begun("-c", f"import app; app.chat.run({arguments})")
    assert program.wait() == 1
    assert program.log.endswith(f"Error: {message}\n")


@pytest.mark.parametrize(
    ("options", "before", "reason"),
    [
        ("", "threading.Thread(target=time.sleep, args=[60], daemon=True,"
         " name='mine').start()", "threads run already (mine)"),
        ("", "__import__('subprocess').Popen(['sleep', '1'])", "child processes"),
        ("", "sys.settrace(lambda *_: None)", "a debugger"),
        ("", "sys.ps1 = '>>> '", "an interactive session"),
        ("patch=False", "", ""),
    ],
)  # fmt: skip
def test_where_it_cannot_be_patched_it_says_so_once(
    run: Run, folder: Path, options: str, before: str, reason: str
) -> None:
    code = PROGRAM + before + RUN.format(options)
    (folder / "app.py").write_text(code)
    program = run("app.py")
    assert program.ask("/about")["patched"] is False
    program.end()
    assert program.log.count(MESSAGE) == bool(reason)
    assert reason in program.log
    if reason:
        assert "monkey.patch_all()` the program's first line" in program.log


def test_in_a_thread_it_stays_unpatched(run: Run, folder: Path) -> None:
    code = PROGRAM + "threading.Thread(target=main).start()"
    (folder / "app.py").write_text(code)
    program = run("app.py")
    program.eventually(lambda: MESSAGE in program.log)
    assert "chat.run was called in a thread" in program.log


@pytest.mark.parametrize("command", ['exec "$0" .', 'exec "$0" < __main__.py'])
def test_a_folder_or_stdin_stays_unpatched(folder: Path, command: str) -> None:
    (folder / "__main__.py").write_text("import app; app.main()")
    program = Running(["sh", "-c", command, sys.executable], folder, {})
    assert program.ask("/about")["patched"] is False
    assert program.end() == 0
    assert "no file or module that Python could run again" in program.log


def test_it_starts_again_once_only(run: Run, folder: Path) -> None:
    """Also where that did not help, as it found another gevent or none."""
    shell = f'{STARTED_AGAIN}=$$ exec "$0" app.py'
    program = Running(["sh", "-c", shell, sys.executable], folder, {})
    assert program.ask("/about")["patched"] is False
    assert program.end() == 0
    assert "did not bring them" in program.log


def test_a_patched_program_is_left_alone(run: Run, folder: Path) -> None:
    first = "from gevent import monkey; monkey.patch_all(); print('first')\n"
    (folder / "app.py").write_text(first + PROGRAM + RUN.format(""))
    program = run("-u", "app.py")
    assert program.ask("/about")["patched"] is True
    program.end()
    assert program.log.count("first") == 1


def test_asyncio_runs_beside_itself_as_the_deploy_page_says(begun: Run) -> None:
    page = (Path(__file__).parent.parent / "docs" / "deploy" / "README.md").read_text()
    assert "gevent.get_hub().threadpool.apply(lambda: asyncio.run(main()))" in page
    url = "ws://" + begun("app.py").url("/asyncio")
    with connect(url) as one, connect(url) as other:
        for ws in (one, other, one, other):
            assert ws.receive(DEADLINE) in ("begun", "done")


def test_the_log_names_the_line_that_keeps_the_loop(begun: Run) -> None:
    program = begun("app.py")
    for _ in range(2):
        with connect("ws://" + program.url("/spins")) as ws:
            assert ws.receive(DEADLINE) == "begun"
            assert ws.receive(DEADLINE) == "done"
    program.end()
    [line] = [each for each in program.lines if "every connection" in each]
    assert re.search(r"app\.py:\d+ in spins: while .*# busy", line)


@pytest.mark.timeout(10)
def test_a_loop_that_waits_is_not_blamed(app: Flask, serve: Serve) -> None:
    """The time is up as well when all of the process stood still."""
    thread = serve(app)._thread.ident
    assert thread is not None
    eventually(lambda: to_blame(sys._current_frames()[thread]) is None)
    assert to_blame(sys._getframe()) is sys._getframe()


# ---- debug mode ---------------------------------------------------------------------


def test_debug_shows_errors_and_requests_and_reloads(run: Run, folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM + RUN.format("debug=True"))
    program = run("app.py")
    with connect("ws://" + program.url("/waits")) as ws:
        assert ws.receive(DEADLINE) == "begun"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen("http://" + program.url("/fails"))
        assert "Werkzeug Debugger" in caught.value.read().decode()
        for words in ("ZeroDivisionError", '"GET /fails HTTP/1.1" 500'):
            program.eventually(functools.partial(program.printed, words))
        assert program.ask("/about")["patched"] is True
        beside = folder / "beside.py"
        beside.write_text('GREETING = "ho"\n')
        os.utime(beside, (2**31, 2**31))  # however coarse the file system's clock is
        with pytest.raises(ConnectionClosed, match="1012"):
            ws.receive(DEADLINE)
    assert program.ask("/about", start=2)["greeting"] == "ho"
    address = program.url("", start=2)
    assert program.end() == 0

    def gone() -> bool:
        try:
            connect(f"ws://{address}/about", timeout=DEADLINE).abort()
        except OSError:
            return True
        return False

    program.eventually(gone)


def test_the_environment_may_ask_for_debugging(begun: Run, folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM + RUN.format("reload=False"))
    program = begun("app.py", FLASK_DEBUG="1")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen("http://" + program.url("/fails"))
    assert "Werkzeug Debugger" in caught.value.read().decode()


# ---- command lines ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("a.py", Program([], "script", "a.py", [])),
        ("-X dev -Wd a.py -m x",
         Program(["-Xdev", "-Wd"], "script", "a.py", ["-m", "x"])),
        ("-uOm a.b -c", Program(["-uO"], "module", "a.b", ["-c"])),
        ("-ma.b c", Program([], "module", "a.b", ["c"])),
        ("-c pass - x", Program([], "code", "pass", ["-", "x"])),
        ("--check-hash-based-pycs never a.py",
         Program(["--check-hash-based-pycs", "never"], "script", "a.py", [])),
        ("-", None),
        ("-u -", None),
        ("-m", None),
        ("-i", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_command_line_is_taken_apart(command: str, found: Program | None) -> None:
    assert find_program(["python", *command.split()]) == found
    assert find_program([]) is None
