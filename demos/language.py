"""English or Chinese: what the browser asks for, or what somebody has chosen here.

The words on the pages are English; ``words/zh/*.json`` say what each is in Chinese, for
templates (``_("Log out")``), for scripts (``t("Log out")`` of ui.js) and for what the
server answers on a socket, which pages translate when they show it.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, g, redirect, request

language = Blueprint("language", __name__)

NAMES = {"en": "English", "zh": "中文"}
WORDS: dict[str, dict[str, str]] = {"en": {}, "zh": {}}
for _file in sorted((Path(__file__).parent / "words" / "zh").glob("*.json")):
    WORDS["zh"] |= json.loads(_file.read_text(encoding="utf-8"))


def spoken() -> str:
    """The language of this request's answer."""
    if "language" not in g:
        chosen = request.cookies.get("language")
        known = (
            chosen if chosen in NAMES else request.accept_languages.best_match(NAMES)
        )
        g.language = known or "en"
    found: str = g.language
    return found


def _(text: str, **values: Any) -> str:
    """Return ``text`` in this request's language, its ``{values}`` filled in."""
    said = WORDS[spoken()].get(text, text)
    return said.format(**values) if values else said


@functools.cache
def said_in(file: Path) -> set[str]:
    """What has words of ours in a script and all it imports, or in a file of Python."""
    source = file.read_text(encoding="utf-8")
    joined = re.sub(r'"\s*(\+\s*)?"', "", source)  # of several literals, one text
    written = {json.dumps(text, ensure_ascii=False): text for text in WORDS["zh"]}
    said = {text for literal, text in written.items() if literal[1:-1] in joined}
    for other in re.findall(r'from "\./([\w-]+\.js)"', source):
        said |= said_in(file.with_name(other))
    return said


def catalogue(scripts: str) -> dict[str, str]:
    """The words for these scripts: theirs, and what the server may tell them."""
    here = Path(__file__).parent
    files = [*here.glob("*.py")]
    for name in re.findall(r"[\w-]+\.js", scripts):
        files.append(here.parent / "static" / name)
    words = WORDS[spoken()]
    return {text: words[text] for file in files for text in said_in(file) & set(words)}


@language.app_context_processor
def words() -> dict[str, Any]:
    lang = spoken()
    return {"_": _, "lang": lang, "languages": NAMES, "catalogue": catalogue}


@language.after_app_request
def tell(response: Response) -> Response:
    if "language" in g:
        response.content_language.add(g.language)
        response.vary.update(["Accept-Language", "Cookie"])
    return response


@language.post("/language")
def choose() -> Any:
    """Keep the choice for a year, and go back to where it was made."""
    back = request.form.get("back", "/")
    if not re.fullmatch(r"/(?![/\\\s])[^\r\n\t]*", back):
        back = "/"  # only to pages of ours
    answer = redirect(back)
    if (chosen := request.form.get("language")) in NAMES:
        answer.set_cookie(
            "language", chosen, 365 * 86400, samesite="Lax", httponly=True
        )
    return answer
