"""`wbcss-train evaluate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.errors import EXIT_DONE
from wbcss.labels import parse_task_id
from wbcss.loading import load_model
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions

from ..cases import read_case_list
from ..evaluate import check_report, evaluate, report_markdown, write_report
from .options import add_common, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("evaluate", help="segment annotated scans and measure every organ")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="registry of the model")
    parser.add_argument("--cases", type=Path, required=True, metavar="LIST.json", help="list, or nnU-Net raw folder")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT.json", help="a table goes beside it as .md")
    parser.add_argument("--task", action="append", metavar="NAME", help="only this task; may be given again")
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    check_report(args.out)
    cases = read_case_list(args.cases)
    tasks = [parse_task_id(task) for task in args.task] if args.task else None
    evaluation = evaluate(
        load_model(Registry(args.registry), tasks),
        cases,
        options=SegmentOptions(device=args.device, threads=args.threads or None),
        progress=shown(as_json=args.json),
    )
    write_report(evaluation, args.out)
    if not args.json:
        sys.stdout.write(report_markdown(evaluation))
    return EXIT_DONE
