"""How a command ends: an exit code, and for every failure one line on standard error."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable

from ..errors import EXIT_CANCELLED, EXIT_FAILED, WbcssError
from .output import complain

_log = logging.getLogger(__name__)


def run_command(parse: Callable[[], argparse.Namespace], *, program: str, cancelled: str, memory_full: str) -> int:
    """Parse, run ``args.run(args)`` and return the exit code: what main functions have in common.

    2 for what the user can mend, 3 for a run that failed, 130 when he stopped it. A traceback is logged with
    ``--verbose`` only.

    Args:
        parse: Reads the command line; its ``verbose`` turns the log on.
        program: Begins every line.
        cancelled, memory_full: What to say then.
    """
    try:
        args = parse()
        if args.verbose:
            logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        code: int = args.run(args)
    except WbcssError as error:
        _log.debug("refused", exc_info=True)
        complain(str(error), program=program)
        return error.exit_code
    except KeyboardInterrupt:
        complain(cancelled, program=program)
        return EXIT_CANCELLED
    except BrokenPipeError:
        # The reader of our output has left, as `| head` does; say nothing, and nothing at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except MemoryError:
        complain(memory_full, program=program)
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001 -- a user gets one line, a developer the log
        _log.debug("failed", exc_info=True)
        complain(f"unexpected {type(error).__name__}: {error}; run again with --verbose and report it", program=program)
        return EXIT_FAILED
    return code
