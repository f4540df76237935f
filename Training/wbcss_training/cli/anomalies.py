"""`wbcss-train anomalies`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.errors import EXIT_DONE
from wbcss.loading import load_model
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions

from ..anomalyreport import anomaly_markdown, prepare_folder, save_picture, write_anomalies
from ..anomalytrial import try_anomalies
from ..faults import KINDS
from ..layouts import read_case_list
from .options import add_common, add_tasks, asked_tasks, count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Declare the command line."""
    parser = commands.add_parser("anomalies", help="plant faults in annotated scans and see whether the checks fire")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="registry of the model")
    parser.add_argument("--cases", type=Path, required=True, metavar="DIR|LIST.json", help="annotated healthy scans")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets anomalies.json and anomalies.md")
    add_tasks(parser)
    parser.add_argument(
        "--kind", action="append", choices=KINDS, help="only this fault; may be given again (default: all)"
    )
    parser.add_argument("--first", type=count, metavar="N", help="only the first N scans")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of the faults (default: 0)")
    parser.add_argument(
        "--pictures", action="store_true", help="a picture of every fault; they show anatomy: keep them to yourself"
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    cases = read_case_list(args.cases)[: args.first]
    model = load_model(Registry(args.registry), asked_tasks(args))
    prepare_folder(args.out)
    with stop_on_signals() as stopped:
        trial = try_anomalies(
            model,
            cases,
            kinds=tuple(kind for kind in KINDS if args.kind is None or kind in args.kind),
            seed=args.seed,
            options=SegmentOptions(device=args.device, threads=args.threads or None),
            watcher=partial(save_picture, args.out) if args.pictures else None,
            progress=shown(as_json=args.json),
            cancelled=stopped,
        )
    write_anomalies(trial, args.out)
    if not args.json:
        sys.stdout.write(anomaly_markdown(trial))
    return EXIT_DONE
