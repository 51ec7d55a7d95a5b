"""The command `wa`.

A server process must not load the end-to-end encryption.  The client's commands import it, so they are left out when
the command is one of the server's.
"""

import sys
from importlib import import_module

import typer

from wa.cli import serve
from wa.errors import LocalError, RemoteError

SERVER_COMMANDS = ("serve", "status", "trace")


def make_app(argv: list[str]) -> typer.Typer:
    """The commands for this command line."""
    app = typer.Typer(
        help="A messaging server, and a client for it.\n\nBegin with: wa serve. In a second terminal: wa register"
        " +15551230001, then wa chat NUMBER.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    serve.add_server_commands(app)
    if argv[:1] not in ([command] for command in SERVER_COMMANDS):
        import_module("wa.cli.client").add_client_commands(app)
    return app


def main() -> None:
    try:
        make_app(sys.argv[1:])()
    except (LocalError, RemoteError) as error:
        print(f"wa: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
