"""`wbcss-train size`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.devices import limited_threads, resolve_device
from wbcss.errors import EXIT_DONE
from wbcss.io.atomic import write_text
from wbcss.labels import parse_task_id
from wbcss.registry import Registry

from ..runfolder import RunFolder
from ..search.measuring import Machine
from ..sizing.picture import draw_sizes
from ..sizing.precision import precision_cost
from ..sizing.report import size_json, size_markdown
from ..sizing.sizes import model_size
from ..sizing.timing import runners, time_model
from .options import add_common, count, shown

REPORT, TABLE, PICTURE = "size.json", "size.md", "size.png"


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Declare the command line."""
    parser = commands.add_parser("size", help="measure how large and how fast the model of a registry is")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="registry of the model")
    parser.add_argument(
        "--full",
        type=Path,
        metavar="DIR",
        help="registry with the full decoders of the same tasks (default: what the cards say of their trimming)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"gets {REPORT}, {TABLE} and {PICTURE}")
    parser.add_argument("--task", action="append", metavar="NAME", help="only this task; may be given again")
    parser.add_argument(
        "--repeats", type=count, default=5, metavar="N", help="runs of which a time is the median (default: 5)"
    )
    parser.add_argument(
        "--precision",
        type=Path,
        action="append",
        default=[],
        metavar="RUN",
        help="run folder of a task: measure on its encoded patches what bfloat16 and int8 cost in Dice; may be given "
        "again",
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    registry = Registry(args.registry)
    model = model_size(
        registry,
        full=None if args.full is None else Registry(args.full),
        tasks=[parse_task_id(task) for task in args.task] if args.task else None,
    )
    progress = shown(as_json=args.json)
    with stop_on_signals() as stopped, limited_threads(args.threads or None):
        precisions = [
            precision_cost(registry, RunFolder(run), threads=args.threads or None, progress=progress, cancelled=stopped)
            for run in args.precision
        ]
        places = runners(model, resolve_device(args.device))
        times = []
        for number, runner in enumerate(places):
            progress(number / len(places), f"time a tile on {runner.device.type} by {runner.kind}")
            times.append(
                time_model(model, runner, repeats=args.repeats, threads=args.threads or None, cancelled=stopped)
            )
        progress(1.0, "measured")
        machines = dict.fromkeys(Machine.of(runner.device).name for runner in places)
        threads = torch.get_num_threads()
    args.out.mkdir(parents=True, exist_ok=True)
    measured_on = "; ".join(machines)
    values = size_json(model, times, machine=measured_on, threads=threads, precisions=precisions)
    text = size_markdown(model, times, machine=measured_on, threads=threads, precisions=precisions)
    write_text(args.out / REPORT, json.dumps(values, indent=1) + "\n")
    write_text(args.out / TABLE, text)
    draw_sizes(model, times, args.out / PICTURE)
    sys.stdout.write(json.dumps(values) + "\n" if args.json else text)
    return EXIT_DONE
