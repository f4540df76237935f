"""`wbcss-train enroll`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from wbcss.cards import TaskCard
from wbcss.catalogue import FIRST_CUSTOM_LABEL, catalogue
from wbcss.cli.main import OneLineParser
from wbcss.console import duration, stop_on_signals, table
from wbcss.errors import EXIT_DONE, SpecError
from wbcss.labels import OrganName, parse_task_id
from wbcss.progress import IsCancelled
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions
from wbcss.specs import DecoderSpec, spec_from_json, spec_to_json

from ..casechoice import ChosenCases, choose_cases
from ..config import TrainConfig
from ..enrolling import enroll, estimate_only
from ..enrollment import ENROLL_CONFIG, EnrollmentReport, EnrollmentRequest
from ..initial import nearest_relative
from ..mapping import ALL_ORGANS, parse_choice
from ..publishing import new_organ
from ..runfolder import BEFORE, RunFolder
from ..runstate import at_work
from .options import add_cases, add_common, add_split, count, is_first_process, positive, share, shown

_AUTO, _NONE = "auto", "none"


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("enroll", help="learn a task on the frozen encoder and publish it")
    add_cases(parser, verb="learn")
    parser.add_argument("--task", required=True, metavar="NAME", help="name of the task in the registry")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="holds the encoder; published here")
    parser.add_argument(
        "--run",
        "--run-dir",  # torchrun takes --run for an abbreviation of its own options
        type=Path,
        required=True,
        metavar="DIR",
        dest="run_dir",
        help="run folder; under torchrun write --run-dir",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help=f"optimizer steps (default: {ENROLL_CONFIG.steps})")
    length.add_argument("--minutes", type=positive, metavar="M", help="as many steps as fit into M minutes in all")
    parser.add_argument("--config", type=Path, metavar="FILE.json", help="other fields of the training schedule")
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
    parser.add_argument("--cache-gib", type=positive, default=4.0, metavar="G", help="encoded patches (default: 4)")
    add_split(parser)
    parser.add_argument("--split", type=Path, metavar="FILE.json", help="hold out what this split file says instead")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of split, patches and weights (default: 0)")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that draw patches (default: 1)"
    )
    parser.add_argument("--license", metavar="TEXT", help="of the learned task, for its card; needed to publish")
    parser.add_argument("--provenance", metavar="TEXT", help="what it is learned from, in words; nobody's name")
    parser.add_argument("--limits", default="", metavar="TEXT", help="what it cannot do, in words")
    parser.add_argument(
        "--organ-cards", type=Path, metavar="FILE.json", help="name, color and codes of organs that the catalogue lacks"
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="stop after the proof; --resume without this option publishes"
    )
    parser.add_argument("--dry-run", action="store_true", help="check, split and estimate only")
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    folder = RunFolder(args.run_dir)
    if folder.is_begun and not (args.resume or args.dry_run):
        raise SpecError(f"the run folder {args.run_dir} already holds a run; add --resume or name another folder")
    if not args.dry_run and not (args.license and args.provenance):
        raise SpecError("a published task needs --license and --provenance, got none; say what others may do with it")
    registry = Registry(args.registry)
    registry.encoder_card()  # refuse a registry without an encoder before reading a single scan
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_on_signals() as signaled, _at_work(args, folder, signaled) as stopped:
        chosen = choose_cases(
            args.cases,
            folder,
            organs=parse_choice(args.organs) if args.organs is not None else ALL_ORGANS,
            leave_out=args.leave_out,
            same_grid=args.same_grid,
            validation_fraction=args.validation_fraction,
            seed=args.seed,
            split_file=args.split,
            progress=shown(as_json=args.json),
            cancelled=stopped,
        )
        _tell_all(chosen.warnings, as_json=args.json)
        request = _request(args, chosen, registry)
        if args.dry_run:
            return _estimate(args, request, registry)
        return _enroll(args, request, registry, stopped)


def _at_work(
    args: argparse.Namespace, folder: RunFolder, stopped: IsCancelled
) -> contextlib.AbstractContextManager[IsCancelled]:
    """Hold the run folder and record how the run ends; an estimate leaves no trace, nor do further processes."""
    return contextlib.nullcontext(stopped) if args.dry_run or not is_first_process() else at_work(folder, stopped)


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
        train=_train(args),
        minutes=args.minutes,
        coarse_share=args.coarse_share,
        cache_gib=args.cache_gib,
        segmentation=SegmentOptions(device=args.device, threads=args.threads or None),
        license=args.license or "",
        provenance=args.provenance or "",
        limits=args.limits,
        organ_cards=_organ_cards(args.organ_cards, chosen.organs),
    )


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


def _train(args: argparse.Namespace) -> TrainConfig:
    values = spec_to_json(ENROLL_CONFIG)
    if args.config is not None:
        values |= _object(args.config, "a training schedule")
    values["seed"] = args.seed
    if args.steps is not None:
        values["steps"] = args.steps
    return spec_from_json(TrainConfig, values)


def _decoder(path: Path | None, *, num_organs: int) -> DecoderSpec | None:
    if path is None:
        return None
    return spec_from_json(DecoderSpec, {**_object(path, "a decoder spec"), "num_organs": num_organs})


def _organ_cards(path: Path | None, organs: tuple[OrganName, ...]) -> dict[OrganName, dict[str, Any]]:
    """Fields of new organs by name, checked before anything is learned. Raises SpecError."""
    cards = {} if path is None else _object(path, "cards of new organs")
    for name, facts in cards.items():
        if name not in organs or name in catalogue():
            raise SpecError(
                f"cards may describe new organs of this task only, got one of {name!r}; it learns {', '.join(organs)}"
            )
        if not isinstance(facts, dict):
            raise SpecError(f"the card of the new organ {name!r} must be a JSON object, got {type(facts).__name__}")
        new_organ(OrganName(name), FIRST_CUSTOM_LABEL, facts)
    return {OrganName(name): facts for name, facts in cards.items()}


def _object(path: Path, what: str) -> dict[str, Any]:
    """A JSON object. Raises SpecError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"expected {what} in JSON, got {path.name}: {error}") from error
    if not isinstance(values, dict):
        raise SpecError(f"expected {what} as a JSON object, got {type(values).__name__} in {path.name}")
    return values


def _estimate(args: argparse.Namespace, request: EnrollmentRequest, registry: Registry) -> int:
    forecast = estimate_only(request, registry, run_dir=args.run_dir, device=args.device)
    sys.stdout.write((json.dumps(forecast.to_json()) if args.json else forecast.sentence) + "\n")
    return EXIT_DONE


def _enroll(args: argparse.Namespace, request: EnrollmentRequest, registry: Registry, stopped: IsCancelled) -> int:
    report = enroll(
        request,
        registry,
        run_dir=args.run_dir,
        device=args.device,
        num_workers=args.workers,
        publish=not args.no_publish,
        tell=lambda text: _tell_all((text,), as_json=args.json),
        progress=shown(as_json=args.json),
        cancelled=stopped,
    )
    if report is not None:
        sys.stdout.write(json.dumps(report.to_json()) + "\n" if args.json else _text(report, args))
        sys.stdout.flush()
    return EXIT_DONE


def _tell_all(sentences: tuple[str, ...], *, as_json: bool) -> None:
    if is_first_process():
        for sentence in sentences:
            sys.stdout.write(json.dumps({"note": sentence}) + "\n" if as_json else f"{sentence}\n")
        sys.stdout.flush()


def _text(report: EnrollmentReport, args: argparse.Namespace) -> str:
    """The report for a person."""
    facts = report.validation
    done = "is published" if report.is_published else "is proven and not yet published (--resume publishes it)"
    lines = [f"{report.card.title} {done} in {args.registry}: {len(report.card.organs)} organ(s)", ""]
    if "organs" in facts:
        rows = [[name, *_cells(row)] for name, row in facts["organs"].items()]
        rows.append(["mean", *_cells(facts["mean"])])
        lines.append(table(("organ", "cases", "Dice", "95% interval", "HD95 mm", "surface Dice"), rows))
    spent = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in report.seconds.items())
    lines += [
        f"note: {facts['note']}",
        f"{report.steps} steps{' (stopped early)' if report.stopped_early else ''}; {spent}",
        f"{len(report.unchanged)} earlier task version(s) answer bit for bit as before; to see it again:",
        f"  wbcss tasks verify --registry {args.registry} --since {args.run_dir / BEFORE}",
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    interval = row["dice_ci95"]
    between = "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    values = {"dice": 3, "hd95_mm": 1, "surface_dice": 3}
    dice, hd95_mm, surface = ("-" if row[k] is None else f"{row[k]:.{digits}f}" for k, digits in values.items())
    return [str(row["count"]), dice, between, hd95_mm, surface]
