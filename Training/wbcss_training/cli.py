"""The `wbcss-train` command line."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from wbcss.cli.main import OneLineParser
from wbcss.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, SpecError, WbcssError
from wbcss.labels import parse_task_id
from wbcss.loading import load_model
from wbcss.nn.model import WholeBodyModel
from wbcss.progress import Progress
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions

from .cases import read_case_list
from .encoder import publish_model, train_encoder
from .evaluate import check_report, evaluate, report_markdown, write_report
from .plan import EncoderPlan, read_plan
from .validation import validate_plan

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``wbcss-train`` with ``argv`` (default: the process's) and return the exit code.

    Every failure is one line on standard error: 2 for what the user can mend, 3 for a run that failed, 130 when he
    stopped it. A traceback is logged with ``--verbose`` only.
    """
    parser = OneLineParser(prog="wbcss-train", description="Train encoders and tasks, offline.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_encoder(commands)
    _add_evaluate(commands)
    try:
        args = parser.parse_args(argv)
        if args.verbose:
            logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        code: int = args.run(args)
    except WbcssError as error:
        _log.debug("refused", exc_info=True)
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("cancelled; go on from the last checkpoint with --resume")
        return EXIT_CANCELLED
    except Exception as error:  # noqa: BLE001 -- a user gets one line, a developer the log
        _log.debug("failed", exc_info=True)
        _complain(f"unexpected {type(error).__name__}: {error}; run again with --verbose and report it")
        return EXIT_FAILED
    return code


def _complain(text: str) -> None:
    sys.stderr.write(f"wbcss-train: {' '.join(text.split())}\n")
    sys.stderr.flush()


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be in [0, 1], got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {text}")
    return value


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--threads", type=_count, metavar="N", help="CPU threads of the network (default: all)")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines on standard output")
    parser.add_argument("--verbose", action="store_true", help="log to standard error, with every traceback")


def _add_encoder(commands: argparse._SubParsersAction[OneLineParser]) -> None:
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
    parser.add_argument("--minutes", type=_positive, metavar="M", help="stop with a checkpoint after M minutes")
    parser.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes that make patches (default: 1)"
    )
    parser.add_argument(
        "--validation-patches",
        type=_count,
        default=24,
        metavar="N",
        help="synthetic scans that every organ is tried on before publishing; 0 publishes untried (default: 24)",
    )
    parser.add_argument(
        "--min-dice", type=_share, default=0.3, metavar="D", help="organs below this are not published (default: 0.3)"
    )
    _add_common(parser)
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
    finished = False
    show = _shown(as_json=args.json)

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
    if args.registry and finished and _is_first_process():
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
            progress=_shown(as_json=args.json),
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


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _shown(*, as_json: bool) -> Progress:
    """Progress on the streams of this command; under torchrun only the first process speaks."""
    last = -1.0

    def report(fraction: float, stage: str) -> None:
        nonlocal last
        if not _is_first_process() or (fraction < 1 and 0 <= fraction - last < 0.001):
            return
        last = fraction
        if as_json:
            sys.stdout.write(json.dumps({"fraction": round(fraction, 4), "stage": stage}) + "\n")
            sys.stdout.flush()
        else:
            sys.stderr.write(f"\r{stage}" + ("\n" if fraction >= 1 else ""))
            sys.stderr.flush()

    return report


def _add_evaluate(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("evaluate", help="segment annotated scans and measure every organ")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="registry of the model")
    parser.add_argument("--cases", type=Path, required=True, metavar="LIST.json", help="list, or nnU-Net raw folder")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT.json", help="a table goes beside it as .md")
    parser.add_argument("--task", action="append", metavar="NAME", help="only this task; may be given again")
    _add_common(parser)
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> int:
    check_report(args.out)
    cases = read_case_list(args.cases)
    tasks = [parse_task_id(task) for task in args.task] if args.task else None
    evaluation = evaluate(
        load_model(Registry(args.registry), tasks),
        cases,
        options=SegmentOptions(device=args.device, threads=args.threads or None),
        progress=_shown(as_json=args.json),
    )
    write_report(evaluation, args.out)
    if not args.json:
        sys.stdout.write(report_markdown(evaluation))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
