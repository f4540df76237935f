"""The `wbcss-train` command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from wbcss.errors import EXIT_CANCELLED, EXIT_DONE, SpecError, WbcssError
from wbcss.registry import Registry

from .encoder import publish_model, train_encoder
from .plan import read_plan


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wbcss-train`` with ``argv`` (default: the process's) and return the exit code."""
    parser = argparse.ArgumentParser(prog="wbcss-train", description="Train encoders and tasks, offline.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_encoder(commands)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except WbcssError as error:
        print(f"wbcss-train: {error}", file=sys.stderr)  # noqa: T201 -- the one line a user gets
        return error.exit_code
    except KeyboardInterrupt:
        print("wbcss-train: cancelled; resume from the last checkpoint with --resume", file=sys.stderr)  # noqa: T201
        return EXIT_CANCELLED
    return code


def _add_encoder(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("encoder", help="train the general encoder with one decoder per dataset")
    parser.add_argument("plan", type=Path, metavar="PLAN.json", help="networks, datasets and schedule")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="run_dir", help="run folder")
    parser.add_argument("--registry", type=Path, metavar="DIR", help="freeze and publish into this registry at the end")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the run folder")
    parser.add_argument("--steps", type=int, metavar="N", help="train this long instead of what the plan says")
    parser.add_argument("--minutes", type=float, metavar="M", help="stop with a checkpoint after M minutes")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that make patches (default: 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the network")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines")
    parser.set_defaults(run=_run_encoder)


def _run_encoder(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan).with_steps(args.steps)
    held = (args.run_dir / "checkpoints").is_dir()
    if held and not args.resume:
        raise SpecError(f"the run folder {args.run_dir} already holds checkpoints; add --resume or name another folder")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.registry and (args.registry / "encoder").exists():
        raise SpecError(f"the registry {args.registry} already has an encoder; name an empty one")
    last = [-1.0]

    def report(fraction: float, stage: str) -> None:
        if int(os.environ.get("RANK", "0")) or (fraction < 1 and fraction - last[0] < 0.001):
            return
        last[0] = fraction
        line = json.dumps({"fraction": round(fraction, 4), "stage": stage}) if args.json else f"\r{stage}"
        print(line, end="\n" if args.json else "", file=sys.stdout if args.json else sys.stderr, flush=True)

    model = train_encoder(
        plan,
        run_dir=args.run_dir,
        device=args.device,
        num_workers=args.workers,
        minutes=args.minutes,
        progress=report,
    )
    finished = last[0] >= 1
    if args.registry and finished and int(os.environ.get("RANK", "0")) == 0:
        publish_model(model, plan, Registry(args.registry), run_dir=args.run_dir)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
