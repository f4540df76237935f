"""`wbcss-train calibrate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.errors import EXIT_DONE
from wbcss.labels import parse_task_id
from wbcss.registry import Registry

from ..layouts import read_case_list
from ..recalibration import Recalibrated, recalibrate
from .options import count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Declare the command line."""
    parser = commands.add_parser("calibrate", help="fit how sure a published task is on scans like those it will meet")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="published here")
    parser.add_argument("--task", required=True, metavar="NAME", help="a new version of it is made, weights as before")
    parser.add_argument(
        "--cases",
        type=Path,
        required=True,
        metavar="DIR|LIST.json",
        help="annotated scans that the task was not trained on",
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="run_dir", help="run folder")
    parser.add_argument("--first", type=count, metavar="N", help="only the first N scans")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which tiles of the scans (default: 0)")
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads of the network (default: all)")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines on standard output")
    parser.add_argument("--verbose", action="store_true", help="log to standard error, with every traceback")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    registry = Registry(args.registry)
    registry.card(parse_task_id(args.task))  # refuse a task that is not there before anything is read
    cases = read_case_list(args.cases)[: args.first]
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_on_signals() as stopped:
        made = recalibrate(
            registry,
            parse_task_id(args.task),
            cases,
            run_dir=args.run_dir,
            seed=args.seed,
            progress=shown(as_json=args.json),
            cancelled=stopped,
        )
    sys.stdout.write(as_json(made) if args.json else as_text(made))
    return EXIT_DONE


def as_json(made: Recalibrated) -> str:
    """One line of JSON."""
    found = made.calibration
    facts = {
        "version": made.card.version,
        "temperature": round(found.temperature, 5),
        "ece_before": round(found.ece_before, 5),
        "ece_after": round(found.ece_after, 5),
        "voxels": found.num_voxels,
        "scans": {name: made.card.confidence.get(name) for name in ("ece_before", "ece_after", "num_voxels")},
        "unchanged": list(made.unchanged),
    }
    return json.dumps(facts) + "\n"


def as_text(made: Recalibrated) -> str:
    """Two sentences."""
    found, scans = made.calibration, made.card.confidence
    return (
        f"{made.card.title} is published: the weights of before, temperature {found.temperature:.3g}; calibration "
        f"error {found.ece_before:.3f} with temperature 1, {found.ece_after:.3f} now, on {found.num_voxels} voxels "
        f"around the organs; over whole scans {shown_error(scans, 'ece_before')}, with the scale that was fitted "
        f"there {shown_error(scans, 'ece_after')}\n"
        f"{len(made.unchanged)} earlier task version(s) answer bit for bit as before\n"
    )


def shown_error(facts: Mapping[str, Any], name: str) -> str:
    """A calibration error of the card, or that there is none: the task claims nothing in the scans."""
    return f"{facts[name]:.3f}" if "scans" in facts else "not known"
