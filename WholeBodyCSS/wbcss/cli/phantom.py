"""`wbcss phantom`: a synthetic CT with its labels, to try things without anybody's data."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import ProgressLine, stop_on_signals
from ..errors import EXIT_DONE, InputError, OutputError
from ..io.atomic import atomic_path
from ..io.writing import check_output, write_segmentation, write_volume
from ..pace import Pace
from ..volume import Spacing_mm, Volume
from .output import say

if TYPE_CHECKING:
    from ..phantom import Phantom

REGIONS = ("whole", "chest", "head_neck", "abdomen")
DEFAULT_SPACING = "3"

_LABEL_SUFFIX = {".nii.gz": ".nii.gz", ".nii": ".nii.gz", ".nrrd": ".seg.nrrd", ".mha": ".seg.nrrd"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Declare the command line of `wbcss phantom`."""
    parser = commands.add_parser(
        "phantom",
        help="make a synthetic CT with labels, to try things",
        description="Draw a whole body from analytic shapes, scan it, and write the CT to OUT and its labels beside "
        "it: NAME-labels.seg.nrrd for .nrrd and .mha, NAME-labels.nii.gz for .nii and .nii.gz. The same options give "
        "the same files; another seed gives another body. It is nobody's body: free to share.",
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="the CT: NAME.nii.gz, NAME.nii, NAME.nrrd or NAME.mha")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which body (default 0)")
    parser.add_argument("--region", choices=REGIONS, default="whole", help="what the scan shows (default whole)")
    parser.add_argument(
        "--spacing",
        default=DEFAULT_SPACING,
        metavar="MM",
        help=f"voxel size in mm, one number or three as 0.8,0.8,3 (default {DEFAULT_SPACING})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser


def run(args: argparse.Namespace) -> int:
    """Make and write it. Raises InputError and OutputError; labels are written first, so a CT always has them."""
    from ..phantom import make_phantom

    labels_path = labels_path_of(args.output)
    check_output(labels_path)
    if args.output.is_dir():
        raise OutputError(f"{args.output} must be a file, but is a folder; choose another name")
    spacing_mm = parse_spacing(args.spacing)
    with (
        stop_on_signals() as stopped,
        ProgressLine(sys.stderr, title="phantom", shown=not args.json) as line,
    ):
        pace = Pace(line)
        phantom = make_phantom(
            args.region, seed=args.seed, spacing_mm=spacing_mm, progress=pace.part(0.0, 0.9), cancelled=stopped
        )
        pace.part(0.9, 1.0)(0.0, "write")
        volume = phantom.volume
        files = write_segmentation(labels_path, phantom.labels, volume.affine, phantom.organs, reference=volume)
        _write_ct(args.output, volume)
    _tell(args, phantom, (args.output, *files))
    return EXIT_DONE


def labels_path_of(output: Path) -> Path:
    """Where the labels of the CT ``output`` go. Raises OutputError for a suffix that no volume is written to."""
    name = output.name
    suffix = next((s for s in _LABEL_SUFFIX if name.lower().endswith(s)), None)
    if suffix is None or name.lower().endswith(".seg.nrrd") or len(name) == len(suffix):
        raise OutputError(f"the phantom must be named NAME.nii.gz, NAME.nii, NAME.nrrd or NAME.mha, got {name!r}")
    return output.with_name(f"{name[: -len(suffix)]}-labels{_LABEL_SUFFIX[suffix]}")


def parse_spacing(text: str) -> Spacing_mm:
    """One number for all axes, or three separated by commas. Raises InputError."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        raise InputError(f"--spacing must be one number of millimeters or three as 0.8,0.8,3, got {text!r}")
    i, j, k = values * 3 if len(values) == 1 else values
    return i, j, k


def _write_ct(path: Path, volume: Volume) -> None:
    if not path.name.lower().endswith(".mha"):
        write_volume(path, volume.voxels, volume.affine)
        return
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(volume.voxels.transpose(2, 1, 0))
    lps = volume.affine[:3] * [[-1.0], [-1.0], [1.0]]
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(lps[:, 3].tolist())
    image.SetDirection((lps[:, :3] / volume.spacing_mm).ravel().tolist())
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _tell(args: argparse.Namespace, phantom: Phantom, files: tuple[Path, ...]) -> None:
    volume, plan = phantom.volume, phantom.plan
    if args.json:
        facts = {
            "volume": str(files[0]),
            "labels": str(files[1]),
            "seed": plan.seed,
            "region": args.region,
            "shape": list(volume.shape),
            "spacing_mm": list(volume.spacing_mm),
            "phase": plan.phase,
            "arms": plan.arms,
            "organs": [organ.name for organ in phantom.organs],
        }
        say(json.dumps(facts))
        return
    shape = " x ".join(str(n) for n in volume.shape)
    spacing = " x ".join(f"{s:g}" for s in volume.spacing_mm)
    say(f"{len(phantom.organs)} organs on {shape} voxels of {spacing} mm, {plan.phase} phase, arms {plan.arms}")
    for path in files:
        say(str(path))
