"""Entry of the `wbcss` command: parse, run one command, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol

from .. import __version__
from ..errors import InputError
from .exits import run_command

COMMANDS = ("segment", "organs", "tasks", "doctor", "phantom")
"""Each is a module of this package with ``add_parser`` and ``run``."""


class Command(Protocol):
    """What a command module offers."""

    def add_parser(self, commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser: ...

    def run(self, args: argparse.Namespace) -> int: ...


class OneLineParser(argparse.ArgumentParser):
    """Complains about a command line as about any other input: in one line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError; sub-parsers are of this class too."""
        raise InputError(f"{message}; see {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser: argparse.ArgumentParser = OneLineParser(prog="wbcss", description="Segment the whole body in CT.")
    parser.add_argument("--version", action="version", version=f"wbcss {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        command: Command = importlib.import_module(f".{name}", __package__)
        subparser = command.add_parser(commands)
        subparser.set_defaults(run=command.run)
        subparser.add_argument("--verbose", action="store_true", help="log to standard error, with every traceback")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wbcss`` with ``argv`` (default: the process's) and return the exit code."""
    with contextlib.suppress(AttributeError, ValueError):
        # A name that the terminal cannot show must never end a run.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return run_command(
        lambda: build_parser().parse_args(argv),
        program="wbcss",
        cancelled="cancelled; nothing was written",
        memory_full="the memory is full; close other programs, crop the volume or segment fewer organs",
    )


if __name__ == "__main__":
    sys.exit(main())
