"""Outputs appear together or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from wbcss.errors import OutputError
from wbcss.outputs import OutputPaths, commit, staging_folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def paths(tmp_path: Path) -> OutputPaths:
    return OutputPaths(tmp_path / "Müller 1.nii.gz")


def test_every_file_shares_the_name_of_the_labels(paths: OutputPaths) -> None:
    assert [path.name for path in (paths.report, paths.statistics, paths.preview, paths.confidence)] == [
        "Müller 1.report.json",
        "Müller 1.statistics.csv",
        "Müller 1.preview.png",
        "Müller 1.confidence.nii.gz",
    ]
    assert OutputPaths(Path("/x/CT.SEG.NRRD")).report == Path("/x/CT.report.json")
    assert OutputPaths(Path("/x/ct.npy")).confidence == Path("/x/ct.confidence.npy")


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nii", "ct", "ct.seg.nrrd.txt", ".seg.nrrd", ".npy"])
def test_another_suffix_is_refused_by_name(name: str) -> None:
    with pytest.raises(OutputError, match=f"NAME.seg.nrrd or NAME.nii.gz, got '{name}'"):
        OutputPaths(Path("/x") / name)


def test_a_name_taken_by_a_folder_is_refused_before_the_run(paths: OutputPaths) -> None:
    paths.check_free()
    paths.preview.mkdir()
    with pytest.raises(OutputError, match=r"Müller 1\.preview\.png must be a file, but is a folder"):
        paths.check_free()


def test_committed_files_are_in_place_and_the_staging_folder_is_gone(paths: OutputPaths) -> None:
    with staging_folder(paths) as folder:
        (folder / paths.labels.name).write_text("labels")
        (folder / paths.report.name).write_text("report")
        assert folder.parent == paths.labels.parent
        assert not paths.labels.exists()
        commit(folder, paths)
    assert _names(paths.labels.parent) == ["Müller 1.nii.gz", "Müller 1.report.json"]
    assert paths.labels.read_text() == "labels"


def test_the_labels_come_last(paths: OutputPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: moved.append(target.name) or replace(self, target))
    with staging_folder(paths) as folder:
        for path in (paths.labels, paths.preview, paths.report, paths.label_names):
            (folder / path.name).touch()
        commit(folder, paths)
    assert len(moved) == 4
    assert moved[-1] == paths.labels.name


def test_what_an_older_run_wrote_does_not_stay_beside_new_labels(paths: OutputPaths) -> None:
    for path in (paths.labels, paths.statistics, paths.report):
        path.write_text("old")
    stranger = paths.labels.with_name("Müller 1.notes.txt")
    stranger.write_text("mine")
    with staging_folder(paths) as folder:
        for path in (paths.labels, paths.report):
            (folder / path.name).write_text("new")
        commit(folder, paths)
    assert _names(paths.labels.parent) == sorted(["Müller 1.nii.gz", "Müller 1.report.json", stranger.name])
    assert paths.report.read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.EIO, "x")])
def test_a_failed_run_leaves_everything_as_it_was(paths: OutputPaths, error: BaseException) -> None:
    paths.labels.write_text("old")

    def fail() -> None:
        with staging_folder(paths) as folder:
            (folder / paths.labels.name).write_text("half")
            raise error

    with pytest.raises((KeyboardInterrupt, ValueError, OutputError)):
        fail()
    assert _names(paths.labels.parent) == [paths.labels.name]
    assert paths.labels.read_text() == "old"


def test_a_full_disk_is_an_output_error_that_names_the_output(paths: OutputPaths) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*Müller 1\.nii\.gz: the disk is full"), staging_folder(paths):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_complaint_never_names_the_staging_folder(paths: OutputPaths) -> None:
    with pytest.raises(OutputError) as caught, staging_folder(paths) as folder:
        raise OutputError(f"cannot write {folder / 'ct.png'}: full")
    assert str(caught.value) == f"cannot write {paths.labels.parent / 'ct.png'}: full"


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path / "missing" / "ct.nii.gz")
    complaint = r"cannot write .*ct\.nii\.gz: the folder .*missing does not exist"
    with pytest.raises(OutputError, match=complaint), staging_folder(paths):
        pass


def test_the_next_run_removes_what_a_killed_one_left_and_spares_a_running_one(paths: OutputPaths) -> None:
    code = (
        "import os, pathlib, sys; from wbcss.outputs import *\n"
        "with staging_folder(OutputPaths(pathlib.Path(sys.argv[1]))) as folder:\n"
        "    (folder / 'half').write_text('x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(paths.labels)], check=False, env=_environment())
    leftovers = _names(paths.labels.parent)
    assert len(leftovers) == 1
    assert leftovers[0].startswith(".wbcss-")
    with staging_folder(paths) as running:
        assert _names(paths.labels.parent) == [running.name]
        with staging_folder(paths):
            assert running.is_dir()


def _environment() -> dict[str, str]:
    room = Path(__file__).resolve().parents[2] / "WholeBodyCSS"
    return {**os.environ, "PYTHONPATH": str(room)}
