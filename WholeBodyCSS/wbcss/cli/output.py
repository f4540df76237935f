"""The two streams of a command: results for the user, and one line of complaint."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write a result and end the line."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


def complain(text: str, *, program: str = "wbcss") -> None:
    """Write exactly one line to standard error, whatever a message quotes."""
    sys.stderr.write(f"{program}: {' '.join(text.split())}\n")
    sys.stderr.flush()
