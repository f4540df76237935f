"""`wbcss-train encoder`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from wbcss.cli.main import OneLineParser
from wbcss.errors import EXIT_DONE, SpecError
from wbcss.nn.model import WholeBodyModel
from wbcss.registry import Registry

from ..bodypart import LevelConfig, train_body_part
from ..encoder import publish_model, train_encoder
from ..loop import CHECKPOINTS
from ..plan import EncoderPlan, read_plan
from ..validation import validate_plan
from .options import add_common, count, is_first_process, positive, share, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("encoder", help="train the general encoder with one decoder per dataset")
    parser.add_argument("plan", type=Path, metavar="PLAN.json", help="networks, datasets and schedule")
    parser.add_argument(
        "--run",
        "--run-dir",  # torchrun takes --run for an abbreviation of its own options
        type=Path,
        required=True,
        metavar="DIR",
        dest="run_dir",
        help="run folder; under torchrun write --run-dir",
    )
    parser.add_argument("--registry", type=Path, metavar="DIR", help="freeze and publish into this registry at the end")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the run folder")
    parser.add_argument("--steps", type=int, metavar="N", help="train this long instead of what the plan says")
    parser.add_argument("--minutes", type=positive, metavar="M", help="stop with a checkpoint after M minutes")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that make patches (default: 1)"
    )
    parser.add_argument(
        "--validation-patches",
        type=count,
        default=24,
        metavar="N",
        help="synthetic scans that every organ is tried on before publishing; 0 publishes untried (default: 24)",
    )
    parser.add_argument(
        "--min-dice", type=share, default=0.3, metavar="D", help="organs below this are not published (default: 0.3)"
    )
    parser.add_argument(
        "--level-patches",
        type=count,
        default=0,
        metavar="N",
        help="after publishing, teach the level head on N patches of the plan's data, such as 800 (default: 0, none; "
        "wbcss-train bodypart does it later)",
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan).with_steps(args.steps)
    held = (args.run_dir / CHECKPOINTS).is_dir()
    if held and not args.resume:
        raise SpecError(f"the run folder {args.run_dir} already holds checkpoints; add --resume or name another folder")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.registry and (args.registry / "encoder").exists():
        raise SpecError(f"the registry {args.registry} already has an encoder; name an empty one")
    finished = False
    show = shown(as_json=args.json)

    def report(fraction: float, stage: str) -> None:
        nonlocal finished
        finished = fraction >= 1
        show(fraction, stage)

    model = train_encoder(
        plan,
        run_dir=args.run_dir,
        device=args.device,
        num_workers=args.workers,
        minutes=args.minutes,
        progress=report,
    )
    if args.registry and finished and is_first_process():
        _publish(model, plan, args)
    return EXIT_DONE


def _publish(model: WholeBodyModel, plan: EncoderPlan, args: argparse.Namespace) -> None:
    verdicts = (
        validate_plan(
            model,
            plan,
            cache_dir=args.run_dir / "cache",
            num_patches=args.validation_patches,
            min_dice=args.min_dice,
            progress=shown(as_json=args.json),
        )
        if args.validation_patches
        else {}
    )
    publish_model(
        model,
        plan,
        Registry(args.registry),
        run_dir=args.run_dir,
        organs={task: verdict.kept for task, verdict in verdicts.items()},
        validation={task: verdict.validation for task, verdict in verdicts.items()},
    )
    if args.level_patches:
        train_body_part(
            args.plan,
            Registry(args.registry),
            run_dir=args.run_dir / "body_part",
            config=LevelConfig(patches=args.level_patches, seed=plan.train.seed),
            cache_dir=args.run_dir / "cache",
            device=args.device,
            progress=shown(as_json=args.json),
        )
