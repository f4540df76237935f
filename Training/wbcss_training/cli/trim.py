"""`wbcss-train trim`."""

from __future__ import annotations

import argparse

from wbcss.cli.main import OneLineParser

from ..config import TrimConfig
from .options import budget, share
from .smaller import add_smaller, distill_config, make_smaller, published_card


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    usual = TrimConfig()
    parser = add_smaller(commands, "trim", text="make a published decoder smaller in steps while it stays as good")
    parser.add_argument(
        "--budget",
        type=budget,
        default=usual.budget,
        metavar="F",
        help="share of its multiply-accumulates to come down to (default: 0.15)",
    )
    parser.add_argument(
        "--tolerance",
        type=share,
        default=usual.tolerance,
        metavar="D",
        help="mean Dice on held-out cases that may be lost in all (default: 0.005, half a point)",
    )
    parser.add_argument(
        "--shrink",
        type=float,
        default=usual.shrink,
        metavar="F",
        help="widths after a step as a share of those before (default: 0.7)",
    )
    parser.add_argument(
        "--multiple", type=int, default=usual.multiple, metavar="N", help="widths are multiples of N (default: 4)"
    )
    parser.add_argument(
        "--max-rejected",
        type=int,
        default=usual.max_rejected,
        metavar="N",
        help="steps that may be taken back before it ends (default: 2)",
    )
    parser.add_argument(
        "--keep-finest",
        action="store_true",
        help="do not try whether the finest level does without convolutions, which saves most",
    )
    parser.add_argument(
        "--importance",
        choices=("taylor", "filters"),
        default=usual.importance,
        help="what tells which channels stay (default: taylor)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    trim = TrimConfig(
        budget=args.budget,
        tolerance=args.tolerance,
        shrink=args.shrink,
        multiple=args.multiple,
        max_rejected=args.max_rejected,
        keep_finest=args.keep_finest,
        step_share=1.0,
        importance=args.importance,
        distill=distill_config(args),
        min_cases=args.min_cases,
    )
    return make_smaller(args, published_card(args), trim)
