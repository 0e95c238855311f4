"""What people read is English in the code, and each of it has its Chinese words."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import url_for
from jinja2 import Environment, nodes

from demos.language import catalogue as catalogue_for
from demos.language import said_in
from demos.who import NO_COOKIES
from example_app import app
from tests.support.processes import ROOT

WORDS = sorted((ROOT / "demos" / "words" / "zh").glob("*.json"))
# Which of their arguments are words; of methods, what closes a socket says why.
PYTHON = {"_": (0,), "Refused": (0,), "close": (1,), "disconnect_user": (2,)}
SCRIPT = {"t": (0,), "phrase": (0,), "plural": (1, 2)}
STRING = r'"(?:[^"\\\n]|\\.)*"'


def in_python(source: str, known: dict[str, str]) -> Iterator[str]:
    """``known``: texts that have a name."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        for index in PYTHON.get(name, ()):
            for node in parts(call.args[index]) if index < len(call.args) else ():
                assert not isinstance(node, ast.JoinedStr), ast.unparse(call)
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                if isinstance(node, ast.Name) and node.id in known:
                    yield known[node.id]


def parts(node: ast.AST) -> Iterator[ast.AST]:
    """What may come of an expression: not what it asks first."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.IfExp) and child is node.test):
            yield from parts(child)


def names_in(source: str) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def in_template(source: str) -> Iterator[str]:
    for call in Environment(autoescape=True).parse(source).find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name == "_":
            for node in (call.args[0], *call.args[0].find_all(nodes.Const)):
                if isinstance(node, nodes.Const):
                    yield node.value


def in_script(source: str) -> Iterator[str]:
    source = re.sub(r"(?s:/\*.*?\*/)|(?m:^\s*//.*$)", "", source)
    for call in re.finditer(rf"(?<![\w.])({'|'.join(SCRIPT)})\(", source):
        found = arguments(source, call.end())
        for index in SCRIPT[call[1]]:
            # A text may go on after a plus, or be one of several.
            for text in re.findall(rf"{STRING}(?:\s*\+\s*{STRING})*", found[index]):
                yield "".join(json.loads(part) for part in re.findall(STRING, text))
            assert "`" not in found[index], found


def arguments(source: str, start: int) -> list[str]:
    """The arguments of a call, as they are written from ``start`` on."""
    found, depth = [""], 0
    for piece in re.findall(rf"{STRING}|`[^`]*`|.", source[start:], re.DOTALL):
        if piece in ("(", "[", "{"):
            depth += 1
        if piece in (")", "]", "}"):
            depth -= 1
        if depth < 0:
            return found
        if piece == "," and depth == 0:
            found.append("")
        else:
            found[-1] += piece
    raise AssertionError("a call without an end")


def used() -> Counter[str]:
    sources = {path: path.read_text() for path in (ROOT / "demos").glob("*.py")}
    known: dict[str, str] = {}
    for source in sources.values():
        known |= names_in(source)
    found = Counter(w for source in sources.values() for w in in_python(source, known))
    for folder, ending, words in [
        ("templates", "html", in_template),
        ("static", "js", in_script),
    ]:
        for path in sorted((ROOT / folder).glob(f"*.{ending}")):
            found.update(words(path.read_text()))
    return found


def entries(path: Path) -> dict[str, str]:
    def once(pairs: list[tuple[str, str]]) -> dict[str, str]:
        assert len(pairs) == len(dict(pairs)), f"{path.name} says something twice"
        return dict(pairs)

    found: dict[str, str] = json.loads(path.read_text(), object_pairs_hook=once)
    return found


def catalogue() -> dict[str, str]:
    return {
        english: words for path in WORDS for english, words in entries(path).items()
    }


def test_all_that_is_shown_has_words() -> None:
    assert sorted(set(used()) - set(catalogue())) == []


def test_all_words_are_used() -> None:
    assert sorted(set(catalogue()) - set(used())) == []


def test_an_entry_is_in_one_file() -> None:
    count = Counter(english for path in WORDS for english in entries(path))
    assert [english for english, times in count.items() if times > 1] == []


def test_a_page_has_the_words_of_its_scripts() -> None:
    for path in (ROOT / "static").glob("*.js"):
        assert set(in_script(path.read_text())) <= said_in(path), path.name
    assert said_in(ROOT / "static" / "group.js") >= said_in(ROOT / "static" / "ui.js")
    with app.test_request_context(headers={"Accept-Language": "zh"}):
        told = catalogue_for("no script")
        assert NO_COOKIES in told
        assert "Try now" not in told
        script = f"<script src='{url_for('static', filename='home.js')}'></script>"
        assert catalogue_for(script)["Try now"] == catalogue()["Try now"]
    with app.test_request_context():
        assert catalogue_for("home.js") == {}


@pytest.mark.parametrize("path", WORDS, ids=lambda path: path.stem)
def test_both_languages_have_the_same_places(path: Path) -> None:
    for english, chinese in entries(path).items():
        places = [sorted(re.findall(r"\{\w*\}", text)) for text in (english, chinese)]
        assert places[0] == places[1], english
        assert re.search("[\u4e00-\u9fff\uff1a]", chinese), english
        assert not re.search("[您]", chinese), english  # we say 你
        assert chinese == chinese.strip()


def test_words_are_found() -> None:
    """What looks for them sees each way of writing them."""
    source = (
        'A = "a"\n_(A)\n_("b" "c", x=1)\nws.close(1, "d" if "x" in y else A)\nclose()\n'
    )
    assert list(in_python(source, names_in(source))) == ["a", "bc", "d", "a"]
    assert list(in_template('{{ _("a") }}{{ f(_("b" if c else "d")) }}{{ _(e) }}')) == [
        "a",
        "b",
        "d",
    ]
    script = 'at("x"); t(a ? "b" : "c" +\n "d", { e: t("f") }) // \n/* t("g") */'
    assert list(in_script(script)) == ["b", "cd", "f"]
    assert list(in_script('plural(f(1, "2"), "a", "b\\u00e4")')) == ["a", "bä"]
