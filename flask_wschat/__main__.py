"""``python -m flask_wschat``: what needs no application."""

import click

from .terminal.command import connect


@click.group(epilog="What looks after an application is in: flask wschat --help")
def main() -> None:
    """Tools for WebSockets, without an application."""


main.add_command(connect)
if __name__ == "__main__":
    main(prog_name="python -m flask_wschat")
