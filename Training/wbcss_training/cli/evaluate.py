"""`wbcss-train evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from wbcss.cli.main import OneLineParser
from wbcss.errors import EXIT_DONE, InputError
from wbcss.loading import LoadedModel, load_model
from wbcss.mergerules import read_rules, write_rules
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions
from wbcss.specs import MergeRules, MergeStrategy

from ..cases import Case, read_case_list
from ..evaluate import check_report, evaluate, report_markdown, write_report
from ..forgetting import evaluate_merged, merged_markdown, write_merged
from ..mergelearning import learn_rules
from .options import add_common, add_tasks, asked_tasks, count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("evaluate", help="segment annotated scans and measure every organ")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="registry of the model")
    parser.add_argument("--cases", type=Path, required=True, metavar="LIST.json", help="list, or nnU-Net raw folder")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT.json", help="a table goes beside it as .md")
    add_tasks(parser)
    parser.add_argument(
        "--merge-rule",
        choices=get_args(MergeStrategy),
        help="how organs and voxels that several tasks claim are settled; the last three are baselines",
    )
    parser.add_argument("--merge-rules", type=Path, metavar="FILE.json", help="rules of --learn-rules to start from")
    parser.add_argument(
        "--merged",
        action="store_true",
        help="compare every task alone with all merged, by the rules and by the baselines: merge-induced forgetting",
    )
    parser.add_argument(
        "--learn-rules",
        type=Path,
        metavar="FILE.json",
        help="with --merged: fit the rules to these cases and write them",
    )
    parser.add_argument("--first", type=count, metavar="N", help="only the first N scans")
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    check_report(args.out)
    if args.learn_rules is not None and not args.merged:
        raise InputError(f"--learn-rules goes with --merged, got {args.learn_rules.name} without it")
    rules = MergeRules() if args.merge_rules is None else read_rules(args.merge_rules)
    if args.merge_rule is not None:
        rules = replace(rules, strategy=args.merge_rule)
    cases = read_case_list(args.cases)[: args.first]
    tasks = asked_tasks(args)
    model = load_model(Registry(args.registry), tasks)
    options = SegmentOptions(device=args.device, threads=args.threads or None, merge=rules)
    if args.merged:
        return _run_merged(args, model, cases, options)
    evaluation = evaluate(model, cases, options=options, progress=shown(as_json=args.json))
    write_report(evaluation, args.out)
    if not args.json:
        sys.stdout.write(report_markdown(evaluation))
    return EXIT_DONE


def _run_merged(args: argparse.Namespace, model: LoadedModel, cases: Sequence[Case], options: SegmentOptions) -> int:
    evaluation = evaluate_merged(model, cases, options=options, progress=shown(as_json=args.json))
    write_merged(evaluation, args.out)
    if args.learn_rules is not None:
        examples = [example for case in evaluation.cases for example in case.examples]
        write_rules(learn_rules(examples, options.merge), args.learn_rules)
    if not args.json:
        sys.stdout.write(merged_markdown(evaluation))
    return EXIT_DONE
