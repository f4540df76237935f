"""What commands that learn in a run folder and publish into a registry share: options, the run, the report."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from wbcss.cards import TaskCard
from wbcss.console import duration, stop_on_signals, table
from wbcss.errors import EXIT_DONE, SpecError
from wbcss.progress import IsCancelled
from wbcss.registry import Registry
from wbcss.specs import spec_from_json, spec_to_json

from ..casechoice import ChosenCases, choose_cases
from ..config import TrainConfig
from ..enrolling import enroll, estimate_only
from ..enrollment import ENROLL_CONFIG, EnrollmentReport, EnrollmentRequest
from ..mapping import OrganChoice
from ..runfolder import BEFORE, RunFolder
from ..runstate import at_work
from .options import add_common, add_split, count, is_first_process, positive, shown


def add_run(parser: argparse.ArgumentParser) -> None:
    """Registry and run folder."""
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
    parser.add_argument("--config", type=Path, metavar="FILE.json", help="other fields of the training schedule")


def add_learning(parser: argparse.ArgumentParser) -> None:
    """How patches are made and who is held out; how the run ends."""
    parser.add_argument("--cache-gib", type=positive, default=4.0, metavar="G", help="encoded patches (default: 4)")
    add_split(parser)
    parser.add_argument("--split", type=Path, metavar="FILE.json", help="hold out what this split file says instead")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of split, patches and weights (default: 0)")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that draw patches (default: 1)"
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="stop after the proof; --resume without this option publishes"
    )
    parser.add_argument("--dry-run", action="store_true", help="check, split and estimate only")
    add_common(parser)


def learn(
    args: argparse.Namespace, organs: OrganChoice, request_for: Callable[[ChosenCases, Registry], EnrollmentRequest]
) -> int:
    """Choose the cases, let ``request_for`` say what is to be learned from them, and learn or estimate it."""
    folder = RunFolder(args.run_dir)
    registry = Registry(args.registry)
    registry.encoder_card()  # refuse a registry without an encoder before reading a single scan
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_on_signals() as signaled, hold(args, folder, signaled) as stopped:
        chosen = chosen_cases(args, folder, organs, stopped)
        request = request_for(chosen, registry)
        if args.dry_run:
            return estimate_run(args, request, registry)
        return run_and_tell(args, request, registry, stopped)


def chosen_cases(args: argparse.Namespace, folder: RunFolder, organs: OrganChoice, stopped: IsCancelled) -> ChosenCases:
    """The cases that the options name, checked and split; warnings are told."""
    chosen = choose_cases(
        args.cases,
        folder,
        organs=organs,
        leave_out=args.leave_out,
        same_grid=args.same_grid,
        validation_fraction=args.validation_fraction,
        seed=args.seed,
        split_file=args.split,
        progress=shown(as_json=args.json),
        cancelled=stopped,
    )
    tell_all(chosen.warnings, as_json=args.json)
    return chosen


def refuse_other_run(args: argparse.Namespace) -> None:
    """Raise SpecError if the run folder holds a run and nobody asked to go on with it."""
    if RunFolder(args.run_dir).is_begun and not (args.resume or getattr(args, "dry_run", False)):
        raise SpecError(f"the run folder {args.run_dir} already holds a run; add --resume or name another folder")


def hold(
    args: argparse.Namespace, folder: RunFolder, stopped: IsCancelled
) -> contextlib.AbstractContextManager[IsCancelled]:
    """Hold the run folder and record how the run ends; an estimate leaves no trace, nor do further processes."""
    return contextlib.nullcontext(stopped) if args.dry_run or not is_first_process() else at_work(folder, stopped)


def train_config(args: argparse.Namespace) -> TrainConfig:
    """The training schedule: the usual one with what the options change."""
    values = spec_to_json(ENROLL_CONFIG) | read_object(args.config, "a training schedule")
    values["seed"] = args.seed
    if args.steps is not None:
        values["steps"] = args.steps
    return spec_from_json(TrainConfig, values)


def read_object(path: Path | None, what: str) -> dict[str, Any]:
    """A JSON object, empty for no file. Raises SpecError."""
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"expected {what} in JSON, got {path.name}: {error}") from error
    if not isinstance(values, dict):
        raise SpecError(f"expected {what} as a JSON object, got {type(values).__name__} in {path.name}")
    return values


def estimate_run(args: argparse.Namespace, request: EnrollmentRequest, registry: Registry) -> int:
    """Tell what a run would cost."""
    forecast = estimate_only(request, registry, run_dir=args.run_dir, device=args.device)
    sys.stdout.write((json.dumps(forecast.to_json()) if args.json else forecast.sentence) + "\n")
    return EXIT_DONE


def run_and_tell(args: argparse.Namespace, request: EnrollmentRequest, registry: Registry, stopped: IsCancelled) -> int:
    """Learn, publish and tell what was done; only the first process speaks."""
    report = enroll(
        request,
        registry,
        run_dir=args.run_dir,
        device=args.device,
        num_workers=args.workers,
        publish=not args.no_publish,
        tell=lambda text: tell_all((text,), as_json=args.json),
        progress=shown(as_json=args.json),
        cancelled=stopped,
    )
    if report is not None:
        sys.stdout.write(json.dumps(report.to_json()) + "\n" if args.json else report_text(report, args))
        sys.stdout.flush()
    return EXIT_DONE


def tell_all(sentences: tuple[str, ...], *, as_json: bool) -> None:
    """Sentences for a person, each on a line."""
    if is_first_process():
        for sentence in sentences:
            sys.stdout.write(json.dumps({"note": sentence}) + "\n" if as_json else f"{sentence}\n")
        sys.stdout.flush()


def report_text(report: EnrollmentReport, args: argparse.Namespace) -> str:
    """The report for a person."""
    facts = report.validation
    done = "is published" if report.is_published else "is proven and not yet published (--resume publishes it)"
    runs = ", run on request only" if report.card.on_request else ""
    lines = [f"{report.card.title} {done} in {args.registry}: {len(report.card.organs)} organ(s){runs}", ""]
    if "organs" in facts:
        rows = [[name, *_cells(row)] for name, row in facts["organs"].items()]
        rows.append(["mean", *_cells(facts["mean"])])
        lines.append(table(("organ", "cases", "Dice", "95% interval", "HD95 mm", "surface Dice"), rows))
    lines += _trimming_lines(report.trimming)
    lines += _calibration_lines(report.card)
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


def _calibration_lines(card: TaskCard) -> list[str]:
    """How far the decoder's confidence was off, and is, where held-out cases could say."""
    known = {"temperature": card.calibration, "confidence": card.confidence}
    return [
        f"{what}: expected calibration error {facts['ece_before']:.3f} before, {facts['ece_after']:.3f} after"
        for what, facts in known.items()
        if "ece_after" in facts
    ]


def _trimming_lines(trimming: Mapping[str, Any]) -> list[str]:
    """The full decoder and the kept one, if there was a trimming."""
    if not trimming:
        return []
    lines = []
    for side in ("full", "kept"):
        facts = trimming[side]
        lines.append(
            f"{side} decoder: {facts['macs'] / 1e9:.3g} GMAC a tile, {facts['parameters'] / 1e6:.3g} million "
            f"parameters, Dice {facts['mean']['dice']:.4f}"
        )
    return lines
