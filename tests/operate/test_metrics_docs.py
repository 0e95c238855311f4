"""What pages and the dashboard say of metrics is there, and nothing is left out."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_wschat import WSChat
from tests.support.exposition import values

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operate" / "metrics.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((DOCS / "deploy" / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
NAME = re.compile(r"\bwschat_\w+")
LABELS = re.compile(r"(\w+)\s*(?:=~?|!~|!=)\s*\"")


@pytest.fixture
def samples(app: Flask, chat: WSChat) -> dict[str, set[str]]:
    """The labels of each sample that is told."""
    found: dict[str, set[str]] = {}
    for sample in values(chat.metrics()):
        name, _, labels = sample.partition("{")
        found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


def targets() -> Iterator[dict[str, Any]]:
    for panel in PANELS:
        yield from panel.get("targets", ())


def alerts() -> list[str]:
    return re.findall(r"^ +expr: (.+)$", PAGE, re.M)


def test_the_table_has_each_metric(app: Flask, chat: WSChat) -> None:
    told = re.findall(r"^# TYPE (\w+) (\w+)$", chat.metrics(), re.M)
    table = re.findall(r"^\| `(\w+)(?:\{(\w+)\})?` \| (\w+) \|", PAGE, re.M)
    assert sorted((name, kind) for name, _, kind in table) == sorted(told)
    labelled = {name: label for name, label, _ in table if label}
    assert labelled == {
        "wschat_connections_closed_total": "code",
        "wschat_handshakes_refused_total": "status",
    }


def test_alerts_and_charts_ask_for_what_there_is(samples: dict[str, set[str]]) -> None:
    exprs = [*alerts(), *(target["expr"] for target in targets())]
    assert len(exprs) > 30
    asked = set()
    for expr in exprs:
        names = set(NAME.findall(expr))
        assert names <= samples.keys(), expr
        asked |= names
        known = {"job", "instance"}.union(*(samples[name] for name in names))
        assert set(LABELS.findall(expr)) <= known, expr
        for labels in re.findall(r"\bby \(([^)]*)\)", expr):
            assert set(labels.split(", ")) <= known, expr
        assert all(expr.count(a) == expr.count(b) for a, b in ("()", "{}", "[]"))
        # A counter alone says nothing.
        for name in names:
            if name.endswith(("_total", "_bucket", "_sum", "_count")):
                assert re.search(rf"(rate|increase)\({name}\b", expr), expr
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    every = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples}
    assert every - families == {"wschat_rooms"}  # of many workers, it says little


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["uid"] and DASHBOARD["title"] == "Flask-WSChat"
    assert "id" not in DASHBOARD  # that is the number in one Grafana
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}
    assert used == variables
    for each in (*PANELS, *targets(), *DASHBOARD["templating"]["list"]):
        source = each.get("datasource")
        assert source in (None, {"type": "prometheus", "uid": "${datasource}"})
    for panel in PANELS:
        if panel["type"] != "row":
            assert panel["title"] and panel["description"].endswith(".")
            letters = [target["refId"] for target in panel["targets"]]
            assert letters == sorted(set(letters)) and letters


def test_no_chart_is_over_another_one() -> None:
    def places(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        across = range(at["x"], at["x"] + at["w"])
        assert at["x"] + at["w"] <= 24
        return set(itertools.product(across, range(at["y"], at["y"] + at["h"])))

    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert not taken & places(panel), panel["title"]
        taken |= places(panel)
