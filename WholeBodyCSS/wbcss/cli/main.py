"""Entry of the `wbcss` command: parse, run one command, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol

from .. import __version__
from ..errors import EXIT_CANCELLED, EXIT_FAILED, InputError, WbcssError
from .output import complain

COMMANDS = ("segment", "organs", "tasks", "doctor", "phantom")
"""Each is a module of this package with ``add_parser`` and ``run``."""

_log = logging.getLogger(__name__)


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
    """Run ``wbcss`` with ``argv`` (default: the process's) and return the exit code.

    Every failure is one line on standard error: 2 for what the user can mend, 3 for a run that failed, 130 when he
    stopped it. A traceback is logged with ``--verbose`` only.
    """
    with contextlib.suppress(AttributeError, ValueError):
        # A name that the terminal cannot show must never end a run.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        args = build_parser().parse_args(argv)
        if args.verbose:
            logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        code: int = args.run(args)
    except WbcssError as error:
        _log.debug("refused", exc_info=True)
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain("cancelled; nothing was written")
        return EXIT_CANCELLED
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does; say nothing, and nothing at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except MemoryError:
        complain("the memory is full; close other programs, crop the volume or segment fewer organs")
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 -- a user gets one line, a developer the log
        _log.debug("failed", exc_info=True)
        complain(f"unexpected {type(error).__name__}: {error}; run again with --verbose and report it")
        return EXIT_FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
