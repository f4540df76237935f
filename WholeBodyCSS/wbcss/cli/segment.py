"""``wbcss segment``: one volume to one file, or many volumes to a folder."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from ..console import ProgressLine, duration, stop_on_signals, table
from ..errors import EXIT_DONE, EXIT_FAILED, EXIT_INPUT, Cancelled, InputError, OutputError, WbcssError
from ..io.atomic import output_error
from ..io.reading import list_inputs
from ..io.writing import check_output_folder
from ..job import SegmentJob, check_request, is_done, run_job
from ..labels import OrganName, TaskId
from ..pace import Report
from ..progress import IsCancelled
from ..protocol import BatchDone, Progress, Quality, Result, encode, error_reply
from ..warm import WarmModel
from .organs import add_registry_option, open_registry
from .output import complain, say

_log = logging.getLogger(__name__)
_LOOKS_LIKE_FILE = re.compile(r".*\.[A-Za-z]{2,5}")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    parser = commands.add_parser(
        "segment",
        help="segment CT volumes",
        description="Segment CT volumes into named organs on their own grid. One input goes to a file, several go to a "
        "folder. All outputs of an input appear together when it is done; an interrupted run leaves none of them.",
        epilog="Exit codes: 0 done; 2 something given is wrong (for a batch: some inputs failed); 3 the run failed; "
        "130 stopped by Ctrl-C.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help=".nii, .nii.gz, .nrrd, .mha, a DICOM folder, or a folder of such for a batch",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="NAME.seg.nrrd or NAME.nii.gz in a folder that is there; for several inputs a folder, made if need be",
    )
    _add_what(parser)
    _add_how(parser)
    return parser


def _add_what(parser: argparse.ArgumentParser) -> None:
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--organs", metavar="A,B", help="only these organs; decoders they do not need are not run")
    chosen.add_argument(
        "--tasks", metavar="T,U", help="only the organs of these tasks (default: all tasks but those on request)"
    )
    add_registry_option(parser)
    parser.add_argument("--series", metavar="UID", help="the DICOM series to take when a folder holds several")
    parser.add_argument("--statistics", action="store_true", help="write NAME.statistics.csv, one row per organ")
    parser.add_argument("--preview", action="store_true", help="write NAME.preview.png: three planes and a legend")
    parser.add_argument(
        "--dicom-seg",
        action="store_true",
        help="write NAME.seg.dcm, a DICOM Segmentation object of the organs found, for inputs that are DICOM folders; "
        "needs the package highdicom. The patient and study attributes that DICOM requires (name, ID, birth date, "
        "sex, study, referring physician, accession number) are copied from the slices, nothing else about the patient",
    )
    parser.add_argument(
        "--repair-numbering",
        action="store_true",
        help="number vertebrae and ribs anew where their order says so; every change is reported and flagged",
    )
    parser.add_argument(
        "--merge-rules",
        type=Path,
        metavar="FILE",
        help="rules for organs that several tasks know, as wbcss-train evaluate --learn-rules writes them",
    )
    parser.add_argument("--confidence", action="store_true", help="write NAME.confidence.nii.gz")
    parser.add_argument(
        "--reference", type=Path, metavar="LABELS", help="labels on the same grid; adds Dice per organ to the results"
    )


def _add_how(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N", help="default: auto")
    parser.add_argument(
        "--quality",
        choices=get_args(Quality),
        default="normal",
        help="overlap of the tiles: fast takes about half the time of normal, best about twice",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the library's choice)")
    parser.add_argument(
        "--no-body-part",
        action="store_false",
        dest="body_part",
        help="run every decoder everywhere and keep organs wherever they are found, even where they cannot be",
    )
    parser.add_argument(
        "--resume", action="store_true", help="skip inputs whose outputs are there, made by the same model and options"
    )
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="JSON lines instead of text: progress, then the result")
    told.add_argument("--quiet", action="store_true", help="say nothing but errors")


def run(args: argparse.Namespace) -> int:
    """Segment every input. Raises what ``run_job`` raises if there is only one."""
    registry = open_registry(args.registry).root
    items = list_inputs(args.inputs)
    template = _template(args, registry)
    _check_single_options(args, len(items))
    is_file = _names_file(args.output)
    if is_file and len(items) != 1:
        raise OutputError(f"-o must be a folder for {len(items)} inputs, got the file name {args.output.name!r}")
    check_request(template)
    with stop_on_signals() as stopped:
        if is_file:
            return _run_single(_Task("1", "", replace(template, input=items[0].path)), args, stopped)
        with _folder(args.output) as folder:
            tasks = [
                _Task(str(n), item.name, replace(template, input=item.path, output=folder / f"{item.name}.seg.nrrd"))
                for n, item in enumerate(items, start=1)
            ]
            return _run_single(tasks[0], args, stopped) if len(tasks) == 1 else _run_batch(tasks, args, stopped)


@dataclass(frozen=True)
class _Task:
    """One input of the command: its number, how to call it, and the job."""

    number: str
    name: str
    job: SegmentJob


def _template(args: argparse.Namespace, registry: Path) -> SegmentJob:
    return SegmentJob(
        input=args.inputs[0],
        output=args.output,
        registry=registry,
        organs=None if args.organs is None else tuple(OrganName(name) for name in _names("--organs", args.organs)),
        tasks=None if args.tasks is None else tuple(TaskId(name) for name in _names("--tasks", args.tasks)),
        series=args.series,
        device=args.device,
        quality=args.quality,
        threads=args.threads,
        statistics=args.statistics,
        preview=args.preview,
        confidence=args.confidence,
        dicom_seg=args.dicom_seg,
        merge_rules=args.merge_rules,
        repair_numbering=args.repair_numbering,
        body_part=args.body_part,
        reference=args.reference,
    )


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"{option} must be names separated by commas, got {text!r}")
    return names


def _check_single_options(args: argparse.Namespace, count: int) -> None:
    for option, value in (("--series", args.series), ("--reference", args.reference)):
        if value is not None and count > 1:
            raise InputError(f"{option} goes with one input, got {count}; segment that one by itself")


def _names_file(output: Path) -> bool:
    """Whether OUT is meant as a file: it is no folder and ends in a suffix (letters only: ``run.v2`` is a folder)."""
    try:
        return not output.is_dir() and _LOOKS_LIKE_FILE.fullmatch(output.name) is not None
    except OSError as error:
        raise output_error(output, error) from error


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """The folder of a batch, made if it is not there, and removed again if nothing came to lie in it."""
    made = not path.exists()
    check_output_folder(path)
    try:
        yield path
    finally:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()


def _run_single(task: _Task, args: argparse.Namespace, stopped: IsCancelled) -> int:
    if args.resume and is_done(task.job):
        if args.json:
            say(encode(BatchDone(total=1, skipped=1)))
        elif not args.quiet:
            say(f"{task.job.output} is there already, made from this input by this model")
        return EXIT_DONE
    try:
        result = _segment(task, args, stopped, WarmModel())
    except WbcssError as error:
        if args.json:
            say(encode(error_reply(error, task.number)))
        raise
    if args.json:
        say(encode(result))
    elif not args.quiet:
        say(organ_table(result))
    return EXIT_DONE


def _run_batch(tasks: Sequence[_Task], args: argparse.Namespace, stopped: IsCancelled) -> int:
    """Segment one after the other with a model that stays loaded; a bad input does not stop the others."""
    warm = WarmModel()
    failures: list[tuple[_Task, Exception]] = []
    skipped = 0
    for task in tasks:
        title = f"{task.number}/{len(tasks)} {task.name}"
        try:
            if args.resume and is_done(task.job):
                skipped += 1
                _tell(args, f"{title}: done already")
                continue
            result = _segment(task, args, stopped, warm, title=title)
        except Cancelled:
            raise
        except Exception as error:  # noqa: BLE001 -- one input must not cost the night's batch
            _log.debug("an input failed", exc_info=True)
            failures.append((task, error))
            if args.json:
                say(encode(error_reply(error, task.number)))
            _tell(args, f"{title}: failed")
            continue
        if args.json:
            say(encode(result))
        found = sum(row.voxels > 0 for row in result.organs)
        _tell(args, f"{title}: {found} organs in {duration(result.seconds)}")
    if args.json:
        say(encode(BatchDone(total=len(tasks), skipped=skipped, failed=len(failures))))
    return _sum_up(failures, len(tasks))


def _sum_up(failures: Sequence[tuple[_Task, Exception]], total: int) -> int:
    if not failures:
        return EXIT_DONE
    replies = [error_reply(error) for _, error in failures]
    for (task, _), reply in zip(failures, replies, strict=True):
        complain(f"{task.name}: {reply.message}")
    complain(f"{len(failures)} of {total} inputs failed")
    return EXIT_INPUT if all(reply.exit_code == EXIT_INPUT for reply in replies) else EXIT_FAILED


def _tell(args: argparse.Namespace, line: str) -> None:
    if not args.json and not args.quiet:
        say(line)


def _segment(
    task: _Task, args: argparse.Namespace, stopped: IsCancelled, warm: WarmModel, *, title: str = ""
) -> Result:
    with ProgressLine(sys.stderr, title=title, shown=not (args.quiet or args.json)) as line:
        report = _json_report(task.number) if args.json else line
        return run_job(task.job, warm=warm, report=report, cancelled=stopped, job_id=task.number)


def _json_report(number: str) -> Report:
    def report(fraction: float, stage: str, remaining_s: float | None) -> None:
        say(encode(Progress(id=number, fraction=fraction, stage=stage, remaining_s=remaining_s)))

    return report


def organ_table(result: Result) -> str:
    """The organs that were found, what to look at, and where the files are."""
    found = [row for row in result.organs if row.voxels > 0]
    with_dice = any(row.dice is not None for row in result.organs)
    rows = [row for row in result.organs if row.voxels > 0 or row.dice is not None]
    header = ["organ", "volume ml", "confidence", *(["dice"] if with_dice else []), "please check"]
    cells = [
        [
            row.organ,
            f"{row.volume_ml:.1f}",
            _decimal(row.mean_confidence),
            *([_decimal(row.dice)] if with_dice else []),
            ", ".join(row.flags),
        ]
        for row in rows
    ]
    summary = f"{len(found)} of {len(result.organs)} organs found in {duration(result.seconds)}"
    scores = [row.dice for row in result.organs if row.dice is not None]
    if scores:
        summary += f"; mean Dice {sum(scores) / len(scores):.3f} over {len(scores)} organs of the reference"
    warnings = [f"note: {warning}" for warning in result.warnings]
    files = [f"{kind:<12}{path}" for kind, path in result.files.items()]
    return "\n".join([table(header, cells) if cells else "", summary, *warnings, *files])


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
