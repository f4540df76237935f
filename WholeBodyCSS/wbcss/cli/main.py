"""Entry of the `wbcss` command: parse, run one command, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol

from .. import __version__
from ..errors import EXIT_CANCELLED, WbcssError

COMMANDS = ("segment", "organs", "tasks", "doctor", "phantom")
"""Each is a module of this package with ``add_parser`` and ``run``."""


class Command(Protocol):
    """What a command module offers."""

    def add_parser(self, commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wbcss`` with ``argv`` (default: the process's) and return the exit code."""
    parser = argparse.ArgumentParser(prog="wbcss", description="Segment the whole body in CT.")
    parser.add_argument("--version", action="version", version=f"wbcss {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        command: Command = importlib.import_module(f".{name}", __package__)
        command.add_parser(commands).set_defaults(run=command.run)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except WbcssError as error:
        print(f"wbcss: {error}", file=sys.stderr)  # noqa: T201 -- the one line a user gets
        return error.exit_code
    except KeyboardInterrupt:
        print("wbcss: cancelled; nothing was written", file=sys.stderr)  # noqa: T201
        return EXIT_CANCELLED
    return code
