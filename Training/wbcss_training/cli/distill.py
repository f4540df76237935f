"""`wbcss-train distill`."""

from __future__ import annotations

import argparse
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.specs import DecoderSpec, spec_from_json

from ..config import TrimConfig
from .options import share
from .runs import read_object
from .smaller import add_smaller, distill_config, make_smaller, published_card


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = add_smaller(commands, "distill", text="teach a smaller decoder what a published one knows")
    parser.add_argument(
        "--decoder",
        type=Path,
        required=True,
        metavar="FILE.json",
        help="spec of the smaller decoder, as search finds it",
    )
    parser.add_argument(
        "--tolerance",
        type=share,
        default=1.0,
        metavar="D",
        help="mean Dice on held-out cases that it may lose; a decoder that loses more is not published (default: 1)",
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    card = published_card(args)
    facts = {**read_object(args.decoder, "a decoder spec"), "num_organs": len(card.organs)}
    trim = TrimConfig(
        target=spec_from_json(DecoderSpec, facts),
        tolerance=args.tolerance,
        step_share=1.0,
        distill=distill_config(args),
        min_cases=args.min_cases,
    )
    return make_smaller(args, card, trim)
