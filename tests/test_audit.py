"""``make audit``: a known fault fails, and a question without answer is told of."""

from __future__ import annotations

import json

from tools.audit import judge, needed


def report(**more: object) -> str:
    known = {"name": "flask", "version": "3.0.0", "vulns": [], **more}
    return json.dumps({"dependencies": [known]})


def test_a_known_fault_fails() -> None:
    fault = {"id": "CVE-1", "fix_versions": ["3.0.1"]}
    clean, words = judge(report(vulns=[fault]), 1)
    assert not clean and "flask 3.0.0: CVE-1, mended in 3.0.1" in words


def test_no_fault_passes() -> None:
    assert judge(report(), 1) == (True, "pip-audit: 1 distributions, no known fault")


def test_who_could_not_ask_says_so() -> None:
    for words in (
        judge("", 3)[1],
        judge(report(), 3)[1],
        judge(report(skip_reason="not found"), 1)[1],
    ):
        assert "COULD NOT ASK" in words


def test_what_users_need_is_asked_about() -> None:
    found = needed()
    assert {"flask", "werkzeug", "gevent", "greenlet", "redis"} <= found.keys()
    assert found.keys().isdisjoint({"pytest", "hypothesis", "mypy"})
