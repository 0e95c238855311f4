"""``python -m flask_wschat``: tools for the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .terminal import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flask_wschat", description="Tools for WebSockets."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command.add_parser(commands)
    options = parser.parse_args(arguments)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
