"""Programs and gunicorn's settings as they are: read and imported apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click.testing
import pytest

from flask_wschat.cli import wschat
from flask_wschat.operate.doctor import examining, patching, serving
from flask_wschat.operate.doctor.finding import Finding, Setup
from tests.support import readme

APP = """
from flask import Flask
from flask_wschat import WSChat
print("imported")
app = Flask(__name__)
app.secret_key = "o7ZfGq2mXc9LrT4vWb8N"
chat = WSChat(app)
@chat.route("/echo")
def echo(ws): ...
"""
LIGHT = """
class app:
    wsgi_app = None
    secret_key = "some"
"""
"""What is taken for an app, without its imports."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GUNICORN_CMD_ARGS", "WSCHAT_SHORTCUTS"):
        monkeypatch.delenv(name, raising=False)


def imported(text: str, *, patched: bool = False) -> dict[str, Any] | Finding:
    Path("program.py").write_text(text)
    return examining.import_apart("program", patched=patched)


def names(seen: Any, **gunicorn: Any) -> list[str]:
    assert isinstance(seen, dict), seen
    given = {"patched": [], "preload_app": False, "workers": 1, **gunicorn}
    setup = Setup(imported=seen, gunicorn=given if gunicorn else None)
    return [each.name for each in patching.patches(setup)]


def test_patches_are_seen_as_they_were_made() -> None:
    late = imported(
        "import ssl\nfrom gevent import monkey\nmonkey.patch_all(thread=False)\n"
        + LIGHT
    )
    assert names(late) == ["patched-partly", "patched-late"]
    assert names(late, worker_class="gthread") == ["patched-under-threads"]
    # gunicorn's own worker has patched before.
    assert names(late, worker_class="gevent") == []
    preloads = {"worker_class": "gevent", "preload_app": True}
    assert names(late, **preloads) == ["preload-unpatched"]
    config = ["socket", "ssl", "time", "select"]
    partly = {"worker_class": "gevent", "patched": config}
    assert names(late, **partly) == ["patched-partly"]
    assert isinstance(late, dict)
    threads = {**late, "patched": [*config, "threading"]}
    threads["calls"] = [{**late["calls"][0], "holding": [], "threads": 2}]
    assert names(threads) == ["patched-with-threads"]
    assert names({**late, "eventlet": True})[0] == "patched-by-eventlet"


def test_a_server_of_gevent_that_nobody_patched() -> None:
    seen = imported(
        LIGHT + "if __name__ == '__main__':\n    chat.run(app, patch=False)"
    )
    assert names(seen) == ["not-patched"]
    assert isinstance(seen, dict)
    assert seen["serves"] == ".run(app, patch=False)"
    assert names(seen, worker_class="gthread") == []


def test_the_first_line_is_in_time() -> None:
    first = "from gevent import monkey; monkey.patch_all()\n"
    seen = imported(first + LIGHT)
    assert isinstance(seen, dict)
    assert names(seen) == []
    assert seen["key"]
    assert names(imported("import threading\n" + first + LIGHT)) == [
        "patched-not-first"
    ]


def test_a_program_that_leaves_another_one_running() -> None:
    start = "import subprocess\nother = subprocess.Popen(['sleep', '100'])\n"
    seen = imported(start + "open('pid', 'w').write(str(other.pid))\n" + LIGHT)
    os.kill(int(Path("pid").read_text()), signal.SIGKILL)
    assert isinstance(seen, dict), seen


def test_a_program_that_fails_is_a_finding() -> None:
    found = imported("import no_such_module_as_this\n")
    assert isinstance(found, Finding)
    assert found.name == "app-broken"
    assert "no_such_module_as_this' (program.py:1)" in found.what
    assert found.remedy.startswith("pip install no_such_module_as_this")


def test_a_name_that_is_nowhere_is_no_package_to_install() -> None:
    found = examining.import_apart("no_such_app", patched=False)
    assert isinstance(found, Finding)
    assert found.name == "app-not-found"
    found = imported(
        "from flask_wschat.errors import ConfigError\n"
        "raise ConfigError('WSCHAT_URL is odd')\n"
    )
    assert isinstance(found, Finding)
    assert found.remedy.startswith("FLASK_WSCHAT_URL=redis://")


def test_a_mistake_in_a_program_is_where_it_is() -> None:
    found = imported("import json\ndef wrong(:\n")
    assert isinstance(found, Finding)
    assert found.what.endswith("(program.py, line 2)")
    assert found.remedy.startswith("flask --app program routes")


def test_gunicorn_that_would_not_start() -> None:
    found = examining.read_gunicorn(["-k", "gevent.no.such", "json:app"])
    assert isinstance(found, dict)
    assert found["app_is_there"]
    assert "No module named 'gevent.no'" in found["unloadable"]
    found = examining.read_gunicorn(["-k", "gthread", "-w", "3", "no_such_app:app"])
    assert isinstance(found, dict)
    # Of an app that is not there nothing else is made up, such as its memory://.
    said = serving.gunicorn(Setup(gunicorn=found | {"threads": 100}))
    assert [each.name for each in said] == ["gunicorn-app"]
    assert not found["app_is_there"]
    assert found["unloadable"] is None


def test_a_program_that_serves_where_it_is_imported() -> None:
    found = imported(APP + "chat.run(app, port=0)\n")  # it would start again, patched
    assert isinstance(found, Finding), found
    assert found.name == "app-serves-at-import"
    assert "(program.py:10)" in found.what
    serve = "import socket\nsocket.create_server(('127.0.0.1', 0))\n"
    found = imported(serve, patched=True)
    assert isinstance(found, Finding), found
    assert "(program.py:2)" in found.what


def test_a_program_that_never_ends_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examining, "IMPORT_SECONDS", 0.3)
    found = imported("import threading\nthreading.Event().wait()\n")
    assert isinstance(found, Finding)
    assert found.name == "app-import-slow"


def test_without_gunicorn_its_settings_are_for_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gunicorn").mkdir()
    (tmp_path / "gunicorn" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = examining.read_gunicorn(["-w", "4"])
    assert isinstance(found, Finding)
    assert found.name == "gunicorn-missing"


def test_gunicorns_settings_are_read_as_gunicorn_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("gunicorn.conf.py").write_text(
        "print('config')\nworkers = 3\nreload = True\nwsgi_app = 'mine:app'\n"
    )
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--threads 7 --workers 5")
    found = examining.read_gunicorn(["--workers", "6", "-k", "gthread"])
    assert isinstance(found, dict)
    wanted = {"workers": 6, "threads": 7, "reload": True, "app": "mine:app"}
    assert wanted.items() <= found.items()
    refused = examining.read_gunicorn(["--wrokers", "6"])
    assert isinstance(refused, Finding)
    assert (refused.name, "wrokers" in refused.what) == ("gunicorn-unreadable", True)


def test_the_command_looks_at_the_program_in_this_folder(tmp_path: Path) -> None:
    program = APP.replace('"o7', "__import__('secrets').token_hex() + \"")
    (tmp_path / "app.py").write_text(program)
    command = [sys.executable, "-m", "flask", "wschat", "doctor", "--json"]
    options = "-w 2 -b unix:chat.sock -k flask_wschat.gunicorn.Worker"
    done = subprocess.run(
        [*command, "--gunicorn", options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    found = {row["name"] for row in json.loads(done.stdout)}
    assert found == {"secret-key-changes", "memory-with-workers", "proxyfix-missing"}
    assert done.returncode == 1
    assert done.stderr.count("imported") == 1
    (tmp_path / "app.py").unlink()
    assert '"name": "app-not-found"' in in_process("--json")
    (tmp_path / "app.py").write_text("from flask import Flsk\n")
    assert in_process().startswith("error    the app cannot be imported: ImportError")


def in_process(*options: str) -> str:
    return click.testing.CliRunner().invoke(wschat, ["doctor", *options]).stdout


def test_of_the_quickstart_there_are_notes_at_most(tmp_path: Path) -> None:
    readme.paste(tmp_path, until="app.py")
    command = [sys.executable, "-m", "flask", "wschat", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("note     the app has no SECRET_KEY")
    assert (last, done.returncode, done.stderr) == ("fine", 0, "")
