"""`wbcss-train synthesize`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.errors import EXIT_DONE, SpecError
from wbcss.labels import OrganName, parse_task_id
from wbcss.registry import Registry
from wbcss.volume import Shape3

from ..atlas import prepare_atlas
from ..synthesis import SyntheticPatches, atlas_classes
from ..syntheticcases import write_synthetic_cases
from .options import count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Declare the command line."""
    parser = commands.add_parser("synthesize", help="draw annotated synthetic scans from a whole-body atlas")
    parser.add_argument("atlas", type=Path, metavar="ATLAS", help="folder of the atlas")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the cases go")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="its encoder says the spacing")
    parser.add_argument(
        "--membership", default="wholebody", metavar="TASK", help="task of the atlas (default: %(default)s)"
    )
    parser.add_argument("--count", type=count, default=20, metavar="N", help="scans (default: %(default)s)")
    parser.add_argument("--shape", default="112,96,112", metavar="I,J,K", help="voxels (default: %(default)s)")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="which bodies (default: 0)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="measurements of the atlas (default: in the output)")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines on standard output")
    parser.add_argument("--verbose", action="store_true", help="log to standard error, with every traceback")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    encoder = Registry(args.registry).encoder_card().spec
    cache_dir = args.cache or args.output / "atlas"
    atlas = prepare_atlas(args.atlas, cache_dir)
    source = SyntheticPatches(
        task=parse_task_id(args.membership),
        organs=tuple(dict.fromkeys(OrganName(name) for name in atlas_classes(atlas.table, args.membership).values())),
        atlas_dir=args.atlas,
        cache_dir=cache_dir,
        encoder=replace(encoder, tile=_shape(args.shape)),
        seed=args.seed,
        membership=args.membership,
    )
    with stop_on_signals() as stopped:
        path = write_synthetic_cases(
            source, args.output, count=args.count, progress=shown(as_json=args.json), cancelled=stopped
        )
    if not args.json:
        sys.stdout.write(f"{args.count} cases of {len(source.organs)} organs; their list is {path}\n")
    return EXIT_DONE


def _shape(text: str) -> Shape3:
    """Three whole numbers. Raises SpecError."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise SpecError(f"--shape must be three whole numbers as in 112,96,112, got {text!r}")
    i, j, k = (int(part) for part in parts)
    return i, j, k
