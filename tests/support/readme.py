"""What the README shows, and how it says to save it."""

from __future__ import annotations

import re
from pathlib import Path

from .processes import ROOT

README = (ROOT / "README.md").read_text()
SNIPPETS = {
    (file, how, name): code
    for file, how, name, code in re.findall(
        r"<!-- test: (\S+)(?: ([+=]) (\S+))? -->\n```\w+\n(.*?)```", README, re.DOTALL
    )
}
"""By the file they go to, how (``+``: above its last two lines, ``=``: instead of them;
else they are all of it) and name."""
ABOVE = "above its last two lines"
FROM_ENVIRONMENT = "app.config.from_prefixed_env()"
INIT = "chat = WSChat(app)"


STORAGE = (ROOT / "docs" / "deploy" / "storage.md").read_text()


def paste(folder: Path, *, until: str = "", ending: str = "") -> None:
    """Save what the README shows as it says, up to the file ``until``."""
    assert ABOVE in README
    for name in ("static", "templates"):
        (folder / name).mkdir()
    for (file, how, name), code in SNIPPETS.items():
        page = file.endswith(".html") and "/" not in file
        path = folder / ("static" if page else ".") / file
        if not how:
            path.write_text(code)
        elif how == "+" or name == ending:
            lines = path.read_text().splitlines(keepends=True)
            assert lines[-2].startswith("if __name__")
            kept = [*lines[-2:]] if how == "+" else []
            path.write_text("".join([*lines[:-2], code, "\n\n", *kept]))
        if file == until:
            return


def configure_from_environment(folder: Path) -> None:
    assert f"`{FROM_ENVIRONMENT}` before `WSChat(app)`" in README
    path = folder / "app.py"
    path.write_text(path.read_text().replace(INIT, f"{FROM_ENVIRONMENT}\n{INIT}"))
