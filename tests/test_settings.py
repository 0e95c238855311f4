"""The ``WSCHAT_*`` configuration: what is read, warned of and refused."""

from __future__ import annotations

import logging
import math
import sys
import traceback
from dataclasses import fields

import pytest
from flask import Flask

from flask_wschat import WSChat
from flask_wschat.errors import ConfigError
from flask_wschat.settings import _WHOLE, Settings


def test_keys_are_read_and_the_rest_keep_their_defaults() -> None:
    settings = Settings.from_config({"WSCHAT_MAX_QUEUE": 10, "SECRET_KEY": "x"})
    assert settings == Settings(MAX_QUEUE=10)


def test_an_unknown_key_warns_with_the_nearest_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        Settings.from_config({"WSCHAT_MAX_MESAGE": 1, "WSCHAT_ZZ": 1})
    assert "WSCHAT_MAX_MESAGE; did you mean WSCHAT_MAX_MESSAGE?" in caplog.text
    assert "unknown configuration key WSCHAT_ZZ\n" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_MESSAGE", 0),
        ("MAX_MESSAGE", "1 MiB"),
        ("MAX_QUEUE", True),
        ("MAX_QUEUED", (1 << 20) - 1),
        ("MAX_QUEUED", None),
        ("PING_INTERVAL", -1),
        ("DRAIN", -0.1),
        ("DRAIN", True),
        ("DRAIN", "10"),
        ("HISTORY_SIZE", -1),
        ("HISTORY_BYTES", 0),
        ("INBOX_SHARE", 0),
        ("INBOX_SHARE", 25),
        ("INBOX_SHARE", True),
        ("MAX_CONNECTIONS", 0),
        ("MAX_CONNECTIONS_PER_USER", 0),
        ("MAX_CONNECTIONS_PER_ADDRESS", "5"),
        ("SLOW_POLICY", "wait"),
        ("COMPRESSION", "on"),
        ("ORIGINS", ["example.org"]),
        ("ORIGINS", "example.org"),
        ("ORIGINS", ["https://*"]),
        ("ORIGINS", ["https://a.*.example"]),
        ("ORIGINS", ["https://*a.example"]),
        ("ORIGINS", [7]),
        ("RATE_LIMIT", "10/s"),
        ("RATE_LIMIT", (10,)),
        ("RATE_LIMIT", (0, 10)),
        ("RATE_LIMIT", (10, 0)),
        ("BYTE_LIMIT", (1, 0)),
        ("BYTE_LIMIT", 65536),
        ("ORIGINS", True),
        ("ORIGINS", 0),
        ("ORIGINS", 7),
        ("METRICS", "public"),
        ("METRICS", None),
    ],
)
def test_an_impossible_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"WSCHAT_{name} ") as error:
        Settings.from_config({f"WSCHAT_{name}": value})
    assert repr(value) in str(error.value)


NOT_ONE: tuple[object, ...] = (
    object(),
    b"5",
    "5",
    "",
    [5],
    (5, 5, 5),
    {"a": 5},
    False,
    -5,
    -0.5,
    5j,
)
NOT_ONE = (*NOT_ONE, math.nan, math.inf, -math.inf, 10**400, (math.inf, 5), ("5", 5))


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)[1:]])
def test_no_value_of_another_kind_gets_as_far_as_a_client(name: str) -> None:
    flags = ("ACCESS_LOG", "COMPRESSION", "METRICS", "SHORTCUTS")
    for value in (*NOT_ONE, *(() if name in flags else (True,))):
        if value is False and name in flags:
            continue
        with pytest.raises(ConfigError, match=f"WSCHAT_{name} ") as error:
            Settings.from_config({f"WSCHAT_{name}": value})
        assert repr(value) in str(error.value)


@pytest.mark.parametrize("name", sorted(_WHOLE))
def test_a_size_may_be_as_large_as_this_computer_counts(name: str) -> None:
    larger = {"MAX_QUEUED": sys.maxsize} | {name: sys.maxsize}
    config = {f"WSCHAT_{key}": value for key, value in larger.items()}
    assert getattr(Settings.from_config(config), name) == sys.maxsize
    with pytest.raises(ConfigError, match=f"WSCHAT_{name} "):
        Settings.from_config(config | {f"WSCHAT_{name}": sys.maxsize + 1})


def test_a_rate_may_come_from_a_file() -> None:
    settings = Settings.from_config(
        {"WSCHAT_RATE_LIMIT": [10, 50], "WSCHAT_BYTE_LIMIT": [1, 2]}
    )
    assert (settings.RATE_LIMIT, settings.BYTE_LIMIT) == ((10, 50), (1, 2))


def test_sizes_are_whole_numbers() -> None:
    settings = Settings.from_config({"WSCHAT_MAX_QUEUE": 1e6, "WSCHAT_MAX_MESSAGE": 5})
    assert repr((settings.MAX_QUEUE, settings.MAX_MESSAGE)) == "(1000000, 5)"
    with pytest.raises(ConfigError, match="WSCHAT_MAX_QUEUE must be an integer"):
        Settings.from_config({"WSCHAT_MAX_QUEUE": 0.5})


SECRET = "s3cret"


@pytest.mark.parametrize(
    "url",
    [
        f"postgres://ann:{SECRET}@h/db",
        f"redis://:{SECRET}",
        f"redis://ann:{SECRET}/x@h:6379/0",
        f"redis://ann:{SECRET}#x@h:6379/0",
        f"redis://ann:{SECRET}\u2100@h:6379/0",
        f"redis://ann:{SECRET}@[h:6379/0",
        f"redis://ann:{SECRET}@h:port/0",
        f"redis://ann:{SECRET}@h:6379/0?colour=red",
        f"redis://h:6379/0?password={SECRET}&colour=red",
        f"redis://h:6379/0?password={SECRET}&socket_timeout=x",
        f"sqlite://ann:{SECRET}@h/db",
        f"{SECRET}@h",
        f"redis://ann:{SECRET}@h:6379/0".encode(),
        [f"redis://ann:{SECRET}@h:6379/0"],
    ],
)
def test_no_password_is_in_the_error_of_a_url(url: object) -> None:
    app = Flask("an_app")
    app.config["WSCHAT_URL"] = url
    with pytest.raises(ConfigError, match="WSCHAT_URL") as raised:
        WSChat(app)
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_no_password_is_in_what_objects_show_of_themselves() -> None:
    app = Flask("an_app")
    app.config["WSCHAT_URL"] = f"redis://ann:{SECRET}@h:6379/0"
    hub = WSChat(app)._hub()
    assert SECRET not in f"{hub} {hub.settings} {hub.backend!r}"
