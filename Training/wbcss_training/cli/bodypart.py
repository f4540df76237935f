"""`wbcss-train bodypart`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.errors import EXIT_DONE, RegistryError, SpecError
from wbcss.levelstore import level_card
from wbcss.registry import Registry

from ..bodypart import LevelConfig, train_body_part
from .options import add_common, count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Declare the command line."""
    parser = commands.add_parser("bodypart", help="teach a registry to tell which part of the body a scan shows")
    parser.add_argument(
        "source",
        type=Path,
        metavar="PLAN.json|ATLAS|CASES",
        help="where levels are known: a training plan, the folder of an atlas, or annotated scans",
    )
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="holds the encoder")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="run_dir", help="run folder")
    parser.add_argument("--resume", action="store_true", help="go on in a run folder that holds a run")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="measured atlas (default: in the run folder)")
    default = LevelConfig()
    for name, what in (
        ("patches", "patches to encode, every eighth held out"),
        ("steps", "optimizer steps of the head"),
        ("hidden", "width of the head"),
        ("seed", "of patches and weights"),
    ):
        value = getattr(default, name)
        parser.add_argument(f"--{name}", type=count, default=value, metavar="N", help=f"{what} (default: {value})")
    parser.add_argument("--license", metavar="TEXT", help="of the head, for its card (default: the encoder's)")
    parser.add_argument("--provenance", metavar="TEXT", help="what it is learned from (default: the encoder's)")
    parser.add_argument(
        "--no-publish", action="store_true", help="stop with the head in the run folder; --resume publishes it"
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    registry = Registry(args.registry)
    registry.encoder_card()  # refuse a registry without an encoder before anything is drawn
    if not args.no_publish and level_card(registry) is not None:
        raise RegistryError(f"the registry {args.registry} already has a level head; make a new one to replace it")
    if (args.run_dir / "run.json").is_file() and not args.resume:
        raise SpecError(f"the run folder {args.run_dir} already holds a run; add --resume or name another folder")
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_on_signals() as stopped:
        card = train_body_part(
            args.source,
            registry,
            run_dir=args.run_dir,
            config=LevelConfig(patches=args.patches, steps=args.steps, hidden=args.hidden, seed=args.seed),
            license=args.license,
            provenance=args.provenance,
            cache_dir=args.cache,
            device=args.device,
            publish=not args.no_publish,
            progress=shown(as_json=args.json),
            cancelled=stopped,
        )
    errors = card.validation
    if args.json:
        sys.stdout.write(json.dumps({"scale_factor": card.scale_factor, "validation": dict(errors)}) + "\n")
    else:
        sys.stdout.write(
            f"levels are off by {errors['mean_absolute_error_cm']:.2f} cm on average and {errors['error_95_cm']:.2f} "
            f"cm in 95% of {errors['slabs']:.0f} held-out slabs; curves of single tiles by {card.margin_cm:.2f} cm "
            f"beyond their doubt; {len(card.ranges_cm)} organs have a range\n"
        )
    return EXIT_DONE
