"""What the commands of `wbcss-train` share: kinds of options, common options, progress."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from wbcss.labels import TaskId, parse_task_id
from wbcss.progress import Progress
from wbcss.registry import Registry
from wbcss.warm import needed_tasks


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def weight(text: str) -> float:
    """A number of at least 0."""
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def share(text: str) -> float:
    """A number in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value


def budget(text: str) -> float:
    """A number above 0 and at most 1."""
    value = share(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value


def count(text: str) -> int:
    """A whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, separated by commas."""
    try:
        values = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        values = ()
    if not values or values[0] < 1:
        raise argparse.ArgumentTypeError(f"must be whole numbers above 0, separated by commas, got {text!r}")
    return values


def add_cases(parser: argparse.ArgumentParser, *, verb: str) -> None:
    """Options that say which annotated scans and organs are meant; ``verb`` is what is done with the organs."""
    parser.add_argument("--cases", type=Path, required=True, metavar="DIR|LIST.json", help="annotated scans")
    parser.add_argument(
        "--organs",
        metavar="LIST",
        help=f"what to {verb}: liver,Gland=parotid_gland_left,GTV=new:my_tumor; all takes the rest too (default: all)",
    )
    parser.add_argument(
        "--leave-out",
        type=numbers,
        default=(),
        metavar="N,N",
        help="cases to leave out, by their number; the others are numbered anew",
    )
    parser.add_argument(
        "--same-grid",
        action="store_true",
        help="take labels that lie less than half a voxel off their image as lying on its grid",
    )


def add_split(parser: argparse.ArgumentParser) -> None:
    """Options that say who is held out."""
    parser.add_argument(
        "--validation-fraction", type=share, default=0.2, metavar="F", help="patients to hold out (default: 0.2)"
    )


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options that every long command takes."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads of the network (default: all)")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines on standard output")
    parser.add_argument("--verbose", action="store_true", help="log to standard error, with every traceback")


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """``--task``, which ``asked_tasks`` reads."""
    parser.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help="only this task; may be given again (default: all but those on request)",
    )


def asked_tasks(args: argparse.Namespace) -> tuple[TaskId, ...] | None:
    """The tasks of ``--task``, or those of ``--registry`` that run for somebody who names none; None if all do.

    Raises InputError if all run on request.
    """
    if args.task:
        return tuple(parse_task_id(task) for task in args.task)
    registry = Registry(args.registry)
    return needed_tasks(registry) if any(card.on_request for card in registry.tasks()) else None


def is_first_process() -> bool:
    """Whether this process speaks for the run: always, but under torchrun only the one of rank 0."""
    return int(os.environ.get("RANK", "0")) == 0


def shown(*, as_json: bool) -> Progress:
    """Progress on the streams of this command; under torchrun only the first process speaks."""
    last = -1.0

    def report(fraction: float, stage: str) -> None:
        nonlocal last
        if not is_first_process() or (fraction < 1 and 0 <= fraction - last < 0.001):
            return
        last = fraction
        if as_json:
            sys.stdout.write(json.dumps({"fraction": round(fraction, 4), "stage": stage}) + "\n")
            sys.stdout.flush()
        else:
            sys.stderr.write(f"\r{stage}" + ("\n" if fraction >= 1 else ""))
            sys.stderr.flush()

    return report
