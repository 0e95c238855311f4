"""What is installed, what the machine gives, and a file that processes share."""

from __future__ import annotations

import importlib.metadata
import os
import re
import resource
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from flask import Flask

from flask_wschat import WSChat, codec
from flask_wschat.backends.sqlite import system as sqlite_system
from flask_wschat.codec import accelerated
from flask_wschat.operate.doctor import (
    build,
    configured,
    on_sqlite,
    secrecy,
    system,
    versions,
)
from flask_wschat.operate.doctor.finding import Setup

TOOLS = Path(__file__).parents[2] / "tools"


def made(**config: object) -> Flask:
    app = Flask("an_app")
    app.config.update(config)
    WSChat(app)
    return app


def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {
        **dict.fromkeys(versions.PACKAGES, "3.0"),
        **{"flask": "2.3.1", "werkzeug": "4.0", "gunicorn": "99.1", "gevent": "24.2"},
        **{"itsdangerous": "2.1", "gevent-websocket": "0.10.1", "jinja2": "3.1.2"},
        **{"redis": "7.0", "msgspec": "strange", "prometheus-client": "0.21"},
    }
    monkeypatch.setattr(importlib.metadata, "version", installed.__getitem__)
    setup = Setup(gunicorn={"worker_class": "gevent", "workers": 1})
    found = [(each.name, each.what) for each in versions.packages(setup)]
    assert found == [
        ("version-too-old", "flask 2.3.1 is older than 3.0"),
        (
            "version-unchecked",
            "werkzeug 4.0 is newer than 3.1, the last one that was checked",
        ),
        (
            "version-unknown",
            "no version of msgspec is known ('strange' is no version)",
        ),
        (
            "version-newer",
            "gunicorn 99.1 is newer than 27.0, the last one that was tested",
        ),
        (
            "gevent-too-old-for-gunicorn",
            "gunicorn's gevent workers refuse gevent 24.2",
        ),
    ]
    monkeypatch.setattr(versions, "PYTHONS", ((3, 9), (3, 9)))
    assert [each.name for each in versions.python(setup)] == ["python-newer"]


def test_figures_that_nobody_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without(package: str) -> str:
        if package == "prometheus-client":
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", without)
    assert list(versions.packages(Setup(app=made()))) == []
    [found] = versions.packages(Setup(app=made(WSCHAT_METRICS=True)))
    assert found.name == "prometheus-missing"


def test_the_versions_are_those_of_the_lists() -> None:
    for name, place in (("oldest.txt", 0), ("tested.txt", 1)):
        listed = dict(
            re.findall(r"^([\w-]+)==(\d+\.\d+)", (TOOLS / name).read_text(), re.M)
        )
        for package, checked in versions.PACKAGES.items():
            assert checked[place] == listed[package], (package, name)


def test_twins_that_do_not_serve_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pure = Setup(environ={"WSCHAT_PUREPYTHON": "1"})
    assert [each.name for each in build.twins(pure)] == ["pure-python"]
    monkeypatch.setattr(accelerated, "ACCELERATED", False)
    [found] = build.twins(Setup())
    assert (found.name, "codec" in found.what) == ("c-not-loaded", True)
    monkeypatch.setattr(codec, "__file__", str(tmp_path / "__init__.py"))
    assert [each.name for each in build.twins(Setup())] == ["c-not-built"]
    monkeypatch.setattr(build, "SWITCH", False)
    [found] = build.shortcuts(Setup())
    assert found.remedy == "unset WSCHAT_SHORTCUTS"


def test_what_the_system_lacks_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(system, "PROC", tmp_path)
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    for name, text in (
        ("net/core/somaxconn", "128\n"),
        ("net/ipv4/ip_local_port_range", "60000 60999\n"),
        ("memory.max", f"{100 << 20}\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    setup = Setup()
    found = [each.name for each in (*system.network(setup), *system.memory(setup))]
    assert found == ["somaxconn-low", "ports-few", "memory-limit"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert [each.name for each in system.temporary(setup)] == ["temp-dir"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(system, "_MB", 1 << 50)
    setup = Setup(environ={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "nowhere")})
    found = [each.name for each in system.temporary(setup)]
    assert found == ["figures-folder", "temp-dir-full"]
    monkeypatch.setattr(time, "time", lambda: 1e6)
    [found_of_clock] = system.clock(setup)
    assert found_of_clock.name == "clock-wrong"
    assert "1970-01-12" in found_of_clock.what


@pytest.mark.parametrize(
    ("soft", "hard", "most", "names"),
    [
        (100, 8192, None, ["files-hardly-any"]),
        (1024, 8192, None, ["files-few"]),
        (1024, 1024, None, ["files-few", "files-hard-limit"]),
        (8192, 8192, 8192, ["files-fewer-than-connections"]),
        (8192, 8192, 4096, []),
    ],
)
def test_few_files_are_found(
    soft: int,
    hard: int,
    most: int | None,
    names: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = {
        resource.RLIMIT_NOFILE: (soft, hard),
        resource.RLIMIT_NPROC: (4096, 4096),
    }
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    app = made(WSCHAT_MAX_CONNECTIONS=most)
    assert [each.name for each in system.files(Setup(app=app))] == names
    limits[resource.RLIMIT_NPROC] = (10, 10)
    assert [each.name for each in system.files(Setup(app=app))][-1] == "processes-few"


def test_faults_of_an_sqlite_file_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(path: Path) -> list[str]:
        app = made(WSCHAT_URL=f"sqlite:///{path}")
        return [each.name for each in on_sqlite.file(Setup(app=app))]

    assert names(tmp_path / "no" / "chat.db") == ["sqlite-folder-missing"]
    app = made(WSCHAT_URL="sqlite:///var/lib/chat/chat.db")  # for sqlite:////var
    [found] = on_sqlite.file(Setup(app=app))
    assert found.remedy.startswith("FLASK_WSCHAT_URL=sqlite:////var/lib/chat/chat.db")
    file = tmp_path / "chat.db"
    assert names(file) == ["sqlite-temporary"]
    file.write_text("this is something else")
    file.chmod(0o600)
    assert names(file) == ["sqlite-temporary", "sqlite-no-file"]
    monkeypatch.setattr(on_sqlite, "_is_temporary", lambda path: False)
    file.write_bytes(b"SQLite format 3\0\x10\0\1\1" + bytes(80))
    file.chmod(0o604)
    tmp_path.chmod(0o711)
    (tmp_path / "chat.db-wal").touch()
    with (tmp_path / "chat.db-wal").open("r+b") as log:
        log.truncate(100 << 20)
    assert names(file) == ["sqlite-no-wal", "sqlite-readable", "sqlite-log-large"]
    monkeypatch.setattr(sqlite_system, "network_disk", lambda path: "nfs4")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    wanted = ["sqlite-network-disk", "sqlite-not-writable"]
    assert names(tmp_path / "new.db") == wanted
    usage = shutil.disk_usage(tmp_path)
    for free, name in ((500, "sqlite-disk-low"), (100, "sqlite-disk-full")):
        now = usage._replace(free=free << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, now=now: now)
        assert names(tmp_path / "new.db")[-1] == name


def test_names_that_are_nearly_right_are_found() -> None:
    app = made(WSCHATT_DRAIN=5, wschat_metrics=True, WEBSITE_URL="https://a.example")
    found = [each.what for each in configured.keys(Setup(app=app))]
    assert [words.rpartition(" ")[2] for words in found] == [
        "WSCHATT_DRAIN",
        "wschat_metrics",
    ]
    app.secret_key = None
    environ = {"SECRET_KEY": "a key that nobody reads"}
    [missing] = secrecy.key(Setup(app=app, environ=environ))
    assert missing.remedy.startswith("FLASK_SECRET_KEY=")
