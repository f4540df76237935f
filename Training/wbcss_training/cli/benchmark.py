"""`wbcss-train benchmark`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from wbcss.cli.main import OneLineParser
from wbcss.devices import resolve_device
from wbcss.errors import EXIT_DONE, SpecError
from wbcss.io.atomic import write_text

from ..continual.benchmark import CONFIG, BenchmarkOptions, run_benchmark
from ..continual.few_shot import curves, run_few_shot
from ..continual.methods import METHODS
from ..continual.peers import PEERS, read_peers
from ..continual.sequence import Sequence, read_sequence
from ..continual.table import benchmark_markdown, few_shot_markdown
from ..processes import terminated
from .options import add_common, count, positive, shown

_FEW_SHOT = "few-shot"


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser(
        "benchmark", help="let methods learn a sequence of tasks and measure what they forget, cell by cell"
    )
    parser.add_argument("sequence", type=Path, metavar="SEQUENCE.json", help="tasks, networks and budget")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="run_dir", help="run folder")
    parser.add_argument(
        "--methods", type=_names, metavar="A,B", help=f"only these (default: all): {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--few-shot", action="store_true", help="the learning curve of few cases that the sequence describes instead"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the cells that are not done")
    parser.add_argument("--minutes", type=positive, metavar="M", help="stop with a checkpoint after M minutes")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that make patches (default: 1)"
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = sorted(set(names) - set(METHODS))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"must be of {', '.join(METHODS)}, got {', '.join(unknown) or text!r}")
    return tuple(dict.fromkeys(names))


def _run(args: argparse.Namespace) -> int:
    sequence = read_sequence(args.sequence)
    run_dir: Path = args.run_dir / _FEW_SHOT if args.few_shot else args.run_dir
    begun = (run_dir / CONFIG).is_file() or (args.few_shot and run_dir.is_dir())
    if begun and not args.resume:
        raise SpecError(f"the run folder {args.run_dir} already holds cells; add --resume or name another folder")
    if args.threads:
        torch.set_num_threads(args.threads)
    deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    with terminated() as told_to_end:
        options = BenchmarkOptions(
            device=resolve_device(args.device),
            num_workers=args.workers,
            threads=args.threads or None,
            progress=shown(as_json=args.json),
            stop_at=lambda: told_to_end() or (deadline is not None and time.monotonic() > deadline),
        )
        text = _curve(sequence, run_dir, args, options) if args.few_shot else _table(sequence, run_dir, args, options)
    if not args.json:
        sys.stdout.write(text)
    return EXIT_DONE


def _table(sequence: Sequence, run_dir: Path, args: argparse.Namespace, options: BenchmarkOptions) -> str:
    from ..continual.plot import plot_benchmark  # a plotting library is slow to import and needed last

    results = run_benchmark(sequence, args.methods or METHODS, run_dir=run_dir, options=options)
    text = benchmark_markdown(sequence.name, results, read_peers(run_dir / PEERS))
    write_text(run_dir / "benchmark.md", text)
    plot_benchmark(results, [task.task for task in sequence.tasks], run_dir / "benchmark.png")
    return text


def _curve(sequence: Sequence, run_dir: Path, args: argparse.Namespace, options: BenchmarkOptions) -> str:
    from ..continual.plot import plot_few_shot

    found = curves(run_few_shot(sequence, run_dir=run_dir, methods=args.methods or (), options=options))
    text = few_shot_markdown(sequence.name, found)
    write_text(run_dir / "few_shot.md", text)
    plot_few_shot(found, run_dir / "few_shot.png")
    return text
