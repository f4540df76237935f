"""Entry point of `wbcss-train`: commands, exit codes, one line per failure."""

from __future__ import annotations

from collections.abc import Sequence

from wbcss.cli.exits import run_command
from wbcss.cli.main import OneLineParser

from . import (
    anomalies,
    benchmark,
    bodypart,
    calibrate,
    check,
    distill,
    encoder,
    enroll,
    evaluate,
    levels,
    reliability,
    search,
    size,
    synthesize,
    trim,
)

_COMMANDS = (
    anomalies,
    benchmark,
    bodypart,
    calibrate,
    check,
    distill,
    encoder,
    enroll,
    evaluate,
    levels,
    reliability,
    search,
    size,
    synthesize,
    trim,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wbcss-train`` with ``argv`` (default: the process's) and return the exit code."""
    parser = OneLineParser(prog="wbcss-train", description="Train encoders and tasks, offline.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return run_command(
        lambda: parser.parse_args(argv),
        program="wbcss-train",
        cancelled="cancelled; go on from the last checkpoint with --resume",
        memory_full="the memory is full; close other programs, or choose a smaller patch, batch or decoder",
    )
