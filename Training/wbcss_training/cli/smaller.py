"""What `wbcss-train distill` and `wbcss-train trim` share: both make a published decoder smaller."""

from __future__ import annotations

import argparse

from wbcss.cards import TaskCard
from wbcss.catalogue import catalogue
from wbcss.cli.main import OneLineParser
from wbcss.errors import SpecError
from wbcss.labels import parse_task_id
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions

from ..casechoice import ChosenCases
from ..config import DistillConfig, TrimConfig
from ..enrollment import EnrollmentRequest
from ..mapping import OrganChoice, parse_choice
from ..runfolder import RunFolder
from .options import add_cases, positive, weight
from .runs import add_learning, add_run, learn, refuse_other_run, train_config

DISTILL_STEPS = 400
"""Usual length of a distillation: a decoder that is cut out of its teacher has little to learn anew."""


def add_smaller(commands: argparse._SubParsersAction[OneLineParser], name: str, *, text: str) -> OneLineParser:
    """A command that takes a published task, cases of it, and how to distill."""
    parser = commands.add_parser(name, help=text)
    add_cases(parser, verb="take from the cases")
    parser.add_argument("--task", required=True, metavar="NAME", help="published task; a new version of it is made")
    add_run(parser)
    parser.add_argument(
        "--steps",
        type=int,
        default=DISTILL_STEPS,
        metavar="N",
        help=f"optimizer steps of every distillation (default: {DISTILL_STEPS})",
    )
    usual = DistillConfig()
    for option, kind, what in (
        ("temperature", positive, "of the logits of both decoders"),
        ("logit_weight", weight, "of the logits of the larger one in the loss; 0 leaves them out"),
        ("feature_weight", weight, "of its features in the loss; 0 leaves them out"),
        ("foreground_weight", weight, "of a voxel of an organ beside the 1 of every voxel"),
        ("boundary_weight", weight, "of a voxel beside another label on top of that"),
    ):
        default = getattr(usual, option)
        flag, shown = f"--{option.replace('_', '-')}", f"{what} (default: {default:g})"
        parser.add_argument(flag, type=kind, default=default, metavar="X", help=shown)
    parser.add_argument(
        "--min-cases", type=int, default=1, metavar="N", help="fewest held-out cases to judge on (default: 1)"
    )
    add_learning(parser)
    return parser


def distill_config(args: argparse.Namespace) -> DistillConfig:
    """How to distill, from the options."""
    return DistillConfig(
        temperature=args.temperature,
        logit_weight=args.logit_weight,
        feature_weight=args.feature_weight,
        foreground_weight=args.foreground_weight,
        boundary_weight=args.boundary_weight,
    )


def make_smaller(args: argparse.Namespace, card: TaskCard, trim: TrimConfig) -> int:
    """Make the decoder of ``card`` smaller and publish a new version of its task.

    License, words, organs and whether it runs on request are those of the published version; nothing is learned but
    what it knows.
    """
    refuse_other_run(args)
    names = frozenset(organ.name for organ in card.organs)
    organs = OrganChoice(wanted=names, new_organs=names - frozenset(catalogue()))
    if args.organs is not None:
        organs = parse_choice(args.organs)

    def request_for(chosen: ChosenCases, registry: Registry) -> EnrollmentRequest:
        if not names & set(chosen.organs):
            raise SpecError(
                f"the cases must annotate an organ of {card.title}, {', '.join(sorted(names)[:5])}, got "
                f"{', '.join(chosen.organs[:5])}"
            )
        split = chosen.split
        return EnrollmentRequest(
            task=card.task,
            organs=tuple(organ.name for organ in card.organs),
            training=split.train,
            validation=split.validation,
            training_ids=split.train_ids,
            validation_ids=split.validation_ids,
            decoder=card.spec,
            published=card,
            trim=trim,
            train=train_config(args),
            cache_gib=args.cache_gib,
            segmentation=SegmentOptions(device=args.device, threads=args.threads or None),
            license=card.license,
            provenance=f"{card.provenance} Made smaller: {card.title} taught it on {len(split.train)} case(s).",
            limits=card.limits,
            on_request=card.on_request,
        )

    return learn(args, organs, request_for)


def published_card(args: argparse.Namespace) -> TaskCard:
    """The task to make smaller; a resumed run keeps its own version, whatever was published since."""
    registry, folder = Registry(args.registry), RunFolder(args.run_dir)
    task = parse_task_id(args.task)
    title = folder.recorded_published() if folder.is_begun else None
    known = next((card for card in registry.all_cards() if card.title == title), None)
    return known or registry.card(task)
