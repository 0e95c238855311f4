"""Writes the tables of docs/operate/doctor.md anew: python -m tests.operate.findings"""

from __future__ import annotations

from pathlib import Path

from flask_wschat.operate.doctor import examining
from flask_wschat.operate.doctor.finding import Kind

PAGE = Path(__file__).parents[2] / "docs" / "operate" / "doctor.md"
BEGIN = (
    "| | name | found | what it means | a line that helps |\n|---|---|---|---|---|\n"
)


def row(kind: Kind) -> str:
    text = f"{kind.what} | {kind.means} | `{kind.remedy}`"
    return f"| {kind.severity} | `{kind.name}` | {text} |\n"


if __name__ == "__main__":
    assert examining.LOOKS
    text = PAGE.read_text().partition(BEGIN)[0]
    PAGE.write_text(text + BEGIN + "".join(map(row, Kind.all.values())))
