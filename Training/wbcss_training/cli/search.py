"""`wbcss-train search`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.devices import resolve_device
from wbcss.errors import EXIT_DONE
from wbcss.labels import parse_task_id
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, spec_from_json, spec_to_json

from ..casechoice import ChosenCases
from ..enrollment import ENROLL_CONFIG, EnrollmentRequest
from ..mapping import ALL_ORGANS, parse_choice
from ..runfolder import RunFolder
from ..runstate import at_work
from ..search.latency import cache_folder
from ..search.searcher import SearchConfig
from ..search.space import full_decoder
from ..search.study import SPEC, StudyRequest, run_study
from .options import add_cases, add_common, add_split, count, positive, shown
from .runs import chosen_cases, read_object, refuse_other_run, tell_all, train_config

_TASK = "search"


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("search", help="find a small decoder for a task within a budget of time")
    add_cases(parser, verb="learn")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="holds the encoder; only read")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", dest="run_dir", help="run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    parser.add_argument(
        "--budget",
        type=positive,
        default=SearchConfig().budget,
        metavar="F",
        help="largest time of the decoder as a share of that of the full one (default: 0.15)",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--sweep",
        action="store_true",
        help="instead train four widths, with and without convolutions at the finest level, and keep the cheapest "
        "within --tolerance",
    )
    mode.add_argument(
        "--compare",
        action="store_true",
        help="search for every seed and train the result against one width at its cost, with and without these",
    )
    parser.add_argument("--seeds", type=_seeds, default=(0, 1, 2), metavar="N,N", help="of --compare (default: 0,1,2)")
    parser.add_argument(
        "--tolerance", type=positive, default=0.005, metavar="D", help="Dice that --sweep may lose (default: 0.005)"
    )
    parser.add_argument(
        "--target",
        metavar="DEVICE|TABLE.json",
        help="device whose time counts, cpu or cuda, or a latency.json that was measured there (default: --device)",
    )
    parser.add_argument(
        "--latency-cache", type=Path, metavar="DIR", help="keep measured times here (default: the user's cache folder)"
    )
    parser.add_argument(
        "--full",
        type=Path,
        metavar="FILE.json",
        help="spec of the full decoder (default: as wide as the encoder, two convolutions a level)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help=f"of every training (default: {ENROLL_CONFIG.steps})")
    parser.add_argument("--config", type=Path, metavar="FILE.json", help="other fields of the training schedule")
    parser.add_argument("--search-config", type=Path, metavar="FILE.json", help="other fields of the search")
    parser.add_argument("--cache-gib", type=positive, default=4.0, metavar="G", help="encoded patches (default: 4)")
    add_split(parser)
    parser.add_argument("--split", type=Path, metavar="FILE.json", help="hold out what this split file says instead")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of split, patches and search (default: 0)")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="processes that draw patches (default: 1)"
    )
    add_common(parser)
    parser.set_defaults(run=_run)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"must be whole numbers from 0 on, each once, got {text!r}")
    return seeds


def _run(args: argparse.Namespace) -> int:
    refuse_other_run(args)
    folder = RunFolder(args.run_dir)
    registry = Registry(args.registry)
    registry.encoder_card()  # refuse a registry without an encoder before reading a single scan
    device = resolve_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    with stop_on_signals() as signaled, at_work(folder, signaled) as stopped:
        organs = parse_choice(args.organs) if args.organs is not None else ALL_ORGANS
        chosen = chosen_cases(args, folder, organs, stopped)
        report = run_study(
            _request(args, chosen, registry, device),
            registry,
            run_dir=args.run_dir,
            device=device,
            num_workers=args.workers,
            tell=lambda text: tell_all((text,), as_json=args.json),
            progress=shown(as_json=args.json),
            cancelled=stopped,
        )
    use = f"{args.run_dir / SPEC} holds the spec; wbcss-train enroll --decoder {args.run_dir / SPEC} ... uses it\n"
    sys.stdout.write(json.dumps(dict(report.facts)) + "\n" if args.json else report.text + use)
    return EXIT_DONE


def _request(args: argparse.Namespace, chosen: ChosenCases, registry: Registry, device: torch.device) -> StudyRequest:
    split = chosen.split
    full = spec_to_json(full_decoder(registry.encoder_card().spec, num_organs=len(chosen.organs)))
    full |= read_object(args.full, "a decoder spec") | {"num_organs": len(chosen.organs)}
    search = {"budget": args.budget, **read_object(args.search_config, "a search")}
    return StudyRequest(
        task=EnrollmentRequest(
            task=parse_task_id(_TASK),
            organs=chosen.organs,
            training=split.train,
            validation=split.validation,
            training_ids=split.train_ids,
            validation_ids=split.validation_ids,
            decoder=spec_from_json(DecoderSpec, full),
            train=train_config(args),
            coarse_share=0.0,
            cache_gib=args.cache_gib,
            license="",
            provenance="",
        ),
        mode="sweep" if args.sweep else "compare" if args.compare else "search",
        search=spec_from_json(SearchConfig, search),
        tolerance=args.tolerance,
        seeds=args.seeds,
        target=_target(args.target, device),
        latency_dir=args.latency_cache or cache_folder(),
    )


def _target(text: str | None, device: torch.device) -> torch.device | Path:
    if text is None:
        return device
    return Path(text) if text.endswith(".json") else resolve_device(text)
