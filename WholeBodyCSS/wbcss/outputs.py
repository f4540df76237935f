"""The files of one segmentation: their names, and how they appear in their folder all together or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import OutputError
from .io.atomic import output_error

LABEL_SUFFIXES = (".seg.nrrd", ".nii.gz", ".npy")


@dataclass(frozen=True)
class OutputPaths:
    """Where everything about one segmentation lies, given the path of its labels.

    Attributes:
        labels: ``NAME.seg.nrrd``, ``NAME.nii.gz`` or, for a worker's host, ``NAME.npy``. Raises OutputError for
            another suffix.
    """

    labels: Path

    def __post_init__(self) -> None:
        if self.suffix is None or not self.name:
            raise OutputError(
                f"the output must be named NAME.seg.nrrd or NAME.nii.gz, got {self.labels.name or str(self.labels)!r}"
            )

    @property
    def suffix(self) -> str | None:
        """The suffix of the labels, or None if it is not one that is written."""
        return next((s for s in LABEL_SUFFIXES if self.labels.name.lower().endswith(s)), None)

    @property
    def name(self) -> str:
        """NAME: the file name of the labels without its suffix."""
        return self.labels.name[: -len(self.suffix or "")]

    @property
    def report(self) -> Path:
        """What the run did."""
        return self.labels.with_name(f"{self.name}.report.json")

    @property
    def statistics(self) -> Path:
        """One row per organ."""
        return self.labels.with_name(f"{self.name}.statistics.csv")

    @property
    def preview(self) -> Path:
        """Picture of three planes."""
        return self.labels.with_name(f"{self.name}.preview.png")

    @property
    def confidence(self) -> Path:
        """Confidence on the grid of the labels."""
        return self.labels.with_name(f"{self.name}.confidence{'.npy' if self.suffix == '.npy' else '.nii.gz'}")

    @property
    def dicom_seg(self) -> Path:
        """The organs as a DICOM object."""
        return self.labels.with_name(f"{self.name}.seg.dcm")

    @property
    def label_names(self) -> Path:
        """The names that go with a ``.nii.gz``; other formats hold them."""
        return self.labels.with_name(f"{self.name}.labels.json")

    def check_free(self) -> None:
        """Refuse names that are taken by a folder: the run would fail at its very end. Raises OutputError."""
        extras = (self.statistics, self.preview, self.confidence, self.dicom_seg, self.label_names)
        for path in (self.labels, self.report, *extras):
            if path.is_dir():
                raise OutputError(f"{path} must be a file, but is a folder; choose another output or remove it")


@contextlib.contextmanager
def staging_folder(paths: OutputPaths) -> Iterator[Path]:
    """A hidden folder beside the output to write into; gone afterwards. Raises OutputError.

    A killed process cannot tidy up, so what an earlier run of this machine left for the same output is removed first.
    """
    stem = hashlib.sha256(f"{platform.node()}/{paths.labels.name}".encode()).hexdigest()[:12]
    for stale in paths.labels.parent.glob(f".wbcss-{stem}-*.partial"):
        if not _is_running(stale.name.split("-")[2]):
            shutil.rmtree(stale, ignore_errors=True)
    try:
        name = tempfile.mkdtemp(prefix=f".wbcss-{stem}-{os.getpid()}-", suffix=".partial", dir=paths.labels.parent)
    except OSError as error:
        raise output_error(paths.labels, error) from error
    try:
        yield Path(name)
    except OSError as error:
        raise output_error(paths.labels, error) from error
    except OutputError as error:  # a writer's complaint names the place in the staging folder; users know the output
        raise OutputError(str(error).replace(name, str(paths.labels.parent))) from error
    finally:
        shutil.rmtree(name, ignore_errors=True)


def commit(folder: Path, paths: OutputPaths) -> None:
    """Move everything out of the staging ``folder`` into place, the labels last: where they are, all of it is.

    Each move replaces an older file in one step. Files of an older run that this one does not write are removed, so
    that a statistics table never lies beside labels it was not made from. Raises OutputError.
    """
    try:
        moves = sorted(folder.iterdir(), key=lambda path: path.name == paths.labels.name)
        written = {path.name for path in moves}
        for old in (paths.report, paths.statistics, paths.preview, paths.confidence, paths.dicom_seg):
            if old.name not in written:
                old.unlink(missing_ok=True)
        for path in moves:
            path.replace(paths.labels.with_name(path.name))
        _sync_folder(paths.labels.parent)
    except OSError as error:
        raise output_error(paths.labels, error) from error


def _is_running(pid_text: str) -> bool:
    if not pid_text.isdigit() or os.name == "nt":
        return True
    try:
        os.kill(int(pid_text), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the renames last through a power cut where the system allows it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
