"""Entry point of `wbcss-train`: commands, exit codes, one line per failure."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from wbcss.cli.main import OneLineParser
from wbcss.errors import EXIT_CANCELLED, EXIT_FAILED, WbcssError

from . import benchmark, check, encoder, enroll, evaluate, synthesize

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wbcss-train`` with ``argv`` (default: the process's) and return the exit code.

    Every failure is one line on standard error: 2 for what the user can mend, 3 for a run that failed, 130 when he
    stopped it. A traceback is logged with ``--verbose`` only.
    """
    parser = OneLineParser(prog="wbcss-train", description="Train encoders and tasks, offline.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (benchmark, check, encoder, enroll, evaluate, synthesize):
        command.add_parser(commands)
    try:
        args = parser.parse_args(argv)
        if args.verbose:
            logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        code: int = args.run(args)
    except WbcssError as error:
        _log.debug("refused", exc_info=True)
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("cancelled; go on from the last checkpoint with --resume")
        return EXIT_CANCELLED
    except Exception as error:  # noqa: BLE001 -- a user gets one line, a developer the log
        _log.debug("failed", exc_info=True)
        _complain(f"unexpected {type(error).__name__}: {error}; run again with --verbose and report it")
        return EXIT_FAILED
    return code


def _complain(text: str) -> None:
    sys.stderr.write(f"wbcss-train: {' '.join(text.split())}\n")
    sys.stderr.flush()
