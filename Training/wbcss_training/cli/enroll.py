"""`wbcss-train enroll`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from wbcss.cards import TaskCard
from wbcss.catalogue import FIRST_CUSTOM_LABEL, catalogue
from wbcss.cli.main import OneLineParser
from wbcss.errors import SpecError
from wbcss.labels import OrganName, parse_task_id
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions
from wbcss.specs import DecoderSpec, spec_from_json

from ..casechoice import ChosenCases
from ..config import TrimConfig
from ..enrollment import ENROLL_CONFIG, EnrollmentRequest
from ..initial import nearest_relative
from ..mapping import ALL_ORGANS, parse_choice
from ..publishing import new_organ
from ..runfolder import RunFolder
from .options import add_cases, budget, positive, share
from .runs import add_learning, add_run, learn, read_object, refuse_other_run, train_config

_AUTO, _NONE = "auto", "none"


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("enroll", help="learn a task on the frozen encoder and publish it")
    add_cases(parser, verb="learn")
    parser.add_argument("--task", required=True, metavar="NAME", help="name of the task in the registry")
    add_run(parser)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help=f"optimizer steps (default: {ENROLL_CONFIG.steps})")
    length.add_argument("--minutes", type=positive, metavar="M", help="as many steps as fit into M minutes in all")
    parser.add_argument(
        "--start-from",
        default=_AUTO,
        metavar="TASK|auto|none",
        help="published task whose decoder the new one begins as a copy of (default: auto, the one that knows most of "
        "the organs)",
    )
    parser.add_argument(
        "--decoder",
        type=Path,
        metavar="FILE.json",
        help="decoder spec (default: that of the task it starts from, or half the encoder); without --start-from, "
        "begins with random weights",
    )
    parser.add_argument(
        "--coarse-share",
        type=share,
        metavar="F",
        help="first part of the steps, at half the cost, without the finest level (default: 0.6 for a decoder of "
        "random weights, else 0)",
    )
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--no-trim", action="store_true", help="publish the decoder as it is learned")
    smaller.add_argument(
        "--trim-budget",
        type=budget,
        default=TrimConfig().budget,
        metavar="F",
        help="once learned, make the decoder smaller down to this share of its multiply-accumulates while held-out "
        "cases lose no more than half a point of Dice (default: 0.15)",
    )
    parser.add_argument("--license", metavar="TEXT", help="of the learned task, for its card; needed to publish")
    parser.add_argument("--provenance", metavar="TEXT", help="what it is learned from, in words; nobody's name")
    parser.add_argument("--limits", default="", metavar="TEXT", help="what it cannot do, in words")
    parser.add_argument(
        "--on-request",
        action=argparse.BooleanOptionalAction,
        help="let it run only for those who name it, or an organ that only it knows: for a task, as of lesions learned "
        "from few cases, that would mislead those who did not ask for it (default: as its version before, else no)",
    )
    parser.add_argument(
        "--organ-cards", type=Path, metavar="FILE.json", help="name, color and codes of organs that the catalogue lacks"
    )
    add_learning(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    refuse_other_run(args)
    if not args.dry_run and not (args.license and args.provenance):
        raise SpecError("a published task needs --license and --provenance, got none; say what others may do with it")
    organs = parse_choice(args.organs) if args.organs is not None else ALL_ORGANS
    return learn(args, organs, lambda chosen, registry: _request(args, chosen, registry))


def _request(args: argparse.Namespace, chosen: ChosenCases, registry: Registry) -> EnrollmentRequest:
    split = chosen.split
    return EnrollmentRequest(
        task=parse_task_id(args.task),
        organs=chosen.organs,
        training=split.train,
        validation=split.validation,
        training_ids=split.train_ids,
        validation_ids=split.validation_ids,
        decoder=_decoder(args.decoder, num_organs=len(chosen.organs)),
        start=_start(args, registry, chosen.organs),
        trim=None if args.no_trim else TrimConfig(budget=args.trim_budget),
        train=train_config(args),
        minutes=args.minutes,
        coarse_share=args.coarse_share,
        cache_gib=args.cache_gib,
        segmentation=SegmentOptions(device=args.device, threads=args.threads or None),
        license=args.license or "",
        provenance=args.provenance or "",
        limits=args.limits,
        on_request=_on_request(args, registry),
        organ_cards=_organ_cards(args.organ_cards, chosen.organs),
    )


def _on_request(args: argparse.Namespace, registry: Registry) -> bool:
    """As asked, else as the version before: nobody lets a task run by default by forgetting an option."""
    if args.on_request is not None:
        return bool(args.on_request)
    return any(card.on_request for card in registry.tasks() if card.task == args.task)


def _start(args: argparse.Namespace, registry: Registry, organs: tuple[OrganName, ...]) -> TaskCard | None:
    """The published task to start from; a resumed run keeps its own, whatever was published since."""
    asked = args.start_from
    if asked == _NONE or (asked == _AUTO and args.decoder is not None):
        return None
    if asked != _AUTO:
        return registry.card(parse_task_id(asked))
    folder = RunFolder(args.run_dir)
    if not folder.is_begun:
        return nearest_relative(registry.tasks(), organs)
    title = folder.recorded_start()
    return next((card for card in registry.all_cards() if card.title == title), None)


def _decoder(path: Path | None, *, num_organs: int) -> DecoderSpec | None:
    if path is None:
        return None
    return spec_from_json(DecoderSpec, {**read_object(path, "a decoder spec"), "num_organs": num_organs})


def _organ_cards(path: Path | None, organs: tuple[OrganName, ...]) -> dict[OrganName, dict[str, Any]]:
    """Fields of new organs by name, checked before anything is learned. Raises SpecError."""
    cards = {} if path is None else read_object(path, "cards of new organs")
    for name, facts in cards.items():
        if name not in organs or name in catalogue():
            raise SpecError(
                f"cards may describe new organs of this task only, got one of {name!r}; it learns {', '.join(organs)}"
            )
        if not isinstance(facts, dict):
            raise SpecError(f"the card of the new organ {name!r} must be a JSON object, got {type(facts).__name__}")
        new_organ(OrganName(name), FIRST_CUSTOM_LABEL, facts)
    return {OrganName(name): facts for name, facts in cards.items()}
