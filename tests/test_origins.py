"""Whose pages may connect."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from flask_wschat.opening.origins import is_one_of, is_rebound

SITE = "https://a.example"


@pytest.mark.parametrize(
    ("origin", "allowed", "fine"),
    [
        (SITE, [SITE], True),
        ("HTTPS://A.Example:443", [SITE], True),
        (SITE, ["https://a.example:443/"], True),
        ("http://a.example:80", ["http://a.example"], True),
        ("http://[::1]:5000", ["http://[::1]:5000"], True),
        ("app://.", ["app://."], True),
        ("file://", ["file://"], True),
        ("anything", ["*"], True),
        ("https://b.a.example", ["https://*.a.example"], True),
        ("https://C.b.A.example:443", ["https://*.A.example"], True),
        ("https://b.a.example:8443", ["https://*.a.example:8443"], True),
        ("https://b.a.example:8443", ["https://*.a.example"], False),
        ("http://b.a.example", ["https://*.a.example"], False),
        ("https://a.example", ["https://*.a.example"], False),
        ("https://.a.example", ["https://*.a.example"], False),
        ("https://b..a.example", ["https://*.a.example"], False),
        ("https://*.a.example", ["https://*.a.example/"], True),
        ("https://*.b.a.example", ["https://*.a.example"], False),
        ("https://evila.example", ["https://*.a.example"], False),
        ("https://b.a.example.evil.example", ["https://*.a.example"], False),
        ("https://evil.example#.a.example", ["https://*.a.example"], False),
        ("https://evil.example\\.a.example", ["https://*.a.example"], False),
        ("https://evil.example%2f.a.example", ["https://*.a.example"], False),
        ("null", ["https://*.a.example"], False),
        ("null", ["null"], True),
        ("https://b.example", [SITE], False),
        ("http://a.example", [SITE], False),
        ("https://a.example:8443", [SITE], False),
        ("https://a.example:x", [SITE], False),
        ("https://a.example@evil.example", [SITE], False),
        ("https://evil.example@a.example", [SITE], False),
        ("https://evil.example/https://a.example", [SITE], False),
        ("https://a.example, https://evil.example", [SITE], False),
        ("https://a.example.", [SITE], False),
        *[
            (origin, ["null"], False)
            for origin in ("", "evil", "http://", "://", "null:80", "http://null", "[")
        ],
        *[
            (origin, [SITE], False)
            for origin in ("", "null", "a.example", "//a.example")
        ],
    ],
)
def test_an_origin_is_allowed_or_not(
    origin: str, allowed: list[str], fine: bool
) -> None:
    assert is_one_of(origin, allowed) is fine


@pytest.mark.parametrize(
    ("host", "environ", "rebound"),
    [
        ("localhost:5000", {}, False),
        ("LOCALHOST.", {}, False),
        ("shop.localhost:80", {}, False),
        ("127.0.0.1:5000", {}, False),
        ("127.1.2.3", {}, False),
        ("[::1]:5000", {}, False),
        ("[::ffff:127.0.0.1]", {}, False),
        ("0.0.0.0:5000", {}, False),
        (f"{socket.gethostname()}:5000", {}, False),
        ("evil.example", {}, True),
        ("evil.example:5000", {}, True),
        ("evillocalhost", {}, True),
        ("localhost.evil.example", {}, True),
        ("127.0.0.1.evil.example", {}, True),
        ("127.0.0.1@evil.example", {}, True),
        ("", {}, True),
        ("evil.example", {"REMOTE_ADDR": "::1"}, True),
        ("evil.example", {"REMOTE_ADDR": "::ffff:127.0.0.1"}, True),
        ("a.example", {"REMOTE_ADDR": "192.0.2.7"}, False),
        ("a.example", {"REMOTE_ADDR": ""}, False),
        ("a.example", {"REMOTE_ADDR": "<local>"}, False),
        ("a.example", {"wsgi.url_scheme": "https"}, False),
        ("a.example", {"HTTP_X_FORWARDED_FOR": "192.0.2.7"}, False),
        ("a.example", {"HTTP_FORWARDED": "for=192.0.2.7"}, False),
        ("a.example", {"HTTP_VIA": "1.1 proxy"}, False),
        ("a.example", {"werkzeug.proxy_fix.orig": {}}, False),
    ],
)
def test_a_loopback_server_has_a_loopback_name(
    host: str, environ: dict[str, Any], rebound: bool
) -> None:
    given = {"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", **environ}
    assert is_rebound(host, given) is rebound
