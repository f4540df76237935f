"""``wbcss segment`` as a person and a script use it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from dicom_slices import COLUMNS, ROWS, save_series
from tiny_registry import publish
from tiny_scan import AFFINE, TRUNK, fix_backend, make_registry, scan_voxels, write_scan

from wbcss import delivery, protocol
from wbcss.cli import segment as command
from wbcss.cli.main import main
from wbcss.io.labelmap import read_labels
from wbcss.registry import REGISTRY_VARIABLE, Registry


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_backend(monkeypatch)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry that the commands find by themselves."""
    made = make_registry(tmp_path / "models" / "registry")
    monkeypatch.setenv(REGISTRY_VARIABLE, str(made.root))
    return made


@pytest.fixture
def scan(tmp_path: Path, registry: Registry) -> Path:
    return write_scan(tmp_path / "in" / "ct.nii.gz")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _run(*arguments: str | Path) -> int:
    return main(["segment", *map(str, arguments)])


def test_a_file_is_segmented_and_the_organs_are_listed(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(scan, "-o", tmp_path / "out.seg.nrrd", "--statistics") == 0
    told = capsys.readouterr()
    assert told.err == ""
    header = told.out.splitlines()[0].split()
    assert header[:3] == ["organ", "volume", "ml"]
    assert "of 4 organs found" in told.out
    assert str(tmp_path / "out.statistics.csv") in told.out
    labels, affine, _ = read_labels(tmp_path / "out.seg.nrrd")
    assert labels.shape == (12, 12, 12)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-6)


def test_one_input_to_a_folder_takes_its_own_name(scan: Path, tmp_path: Path) -> None:
    assert _run(scan, "-o", tmp_path / "results") == 0
    assert _names(tmp_path / "results") == ["ct.report.json", "ct.seg.nrrd"]


def test_paths_may_hold_any_script_and_spaces(scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "患者 Müller ض"
    moved = write_scan(folder / "снимок 1.nii.gz")
    assert _run(moved, "-o", folder / "Ergebnis ü.nii.gz", "--preview", "--confidence", "--statistics") == 0
    assert "Ergebnis ü.labels.json" in _names(folder)
    assert read_labels(folder / "Ergebnis ü.nii.gz").names[TRUNK["liver"]] == "liver"


def test_json_lines_are_messages_of_the_protocol(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(scan, "-o", tmp_path / "out.nii.gz", "--json", "--organs", "liver, spleen") == 0
    told = capsys.readouterr()
    assert told.err == ""
    *progress, result = [protocol.parse_reply(line) for line in told.out.splitlines()]
    assert progress
    assert {type(message) for message in progress} == {protocol.Progress}
    assert isinstance(result, protocol.Result)
    assert [row.organ for row in result.organs] == ["spleen", "liver"]
    assert result.files["labels"] == str(tmp_path / "out.nii.gz")


def test_a_failure_in_json_is_a_message_too(tmp_path: Path, scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan.write_text("no volume")
    assert _run(scan, "-o", tmp_path / "out.nii.gz", "--json") == 2
    told = capsys.readouterr()
    error = protocol.parse_reply(told.out.splitlines()[-1])
    assert isinstance(error, protocol.ErrorReply)
    assert error.exit_code == 2
    assert len(told.err.splitlines()) == 1


def test_quiet_says_nothing(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(scan, "-o", tmp_path / "out.nii.gz", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_dice_is_listed_with_a_reference(scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(scan, "-o", tmp_path / "a.seg.nrrd") == 0
    assert _run(scan, "-o", tmp_path / "b.seg.nrrd", "--reference", tmp_path / "a.seg.nrrd") == 0
    assert "mean Dice 1.000" in capsys.readouterr().out


def test_an_existing_output_is_replaced(scan: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.nii.gz"
    target.write_text("old")
    assert _run(scan, "-o", target) == 0
    assert read_labels(target).labels.shape == (12, 12, 12)


@pytest.fixture
def batch(scan: Path) -> Path:
    """A folder of three: two volumes and a text in between."""
    scan.rename(scan.with_name("a.nii.gz"))
    scan.with_name("b.nii.gz").write_text("no volume")
    write_scan(scan.with_name("c.nii.gz"), (12, 12, 14))
    return scan.parent


def test_a_batch_goes_on_after_a_bad_input_and_names_it_at_the_end(
    batch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(batch, "-o", tmp_path / "deep" / "out") == 2
    told = capsys.readouterr()
    assert _names(tmp_path / "deep" / "out") == ["a.report.json", "a.seg.nrrd", "c.report.json", "c.seg.nrrd"]
    complaints = told.err.splitlines()
    assert len(complaints) == 2
    assert complaints[0].startswith("wbcss: b: ")
    assert complaints[1] == "wbcss: 1 of 3 inputs failed"
    assert [line.split()[0] for line in told.out.splitlines()] == ["1/3", "2/3", "3/3"]


def test_a_batch_in_json_ends_with_its_sum(batch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(batch, "-o", tmp_path / "out", "--json") == 2
    replies = [protocol.parse_reply(line) for line in capsys.readouterr().out.splitlines()]
    ends = [reply for reply in replies if not isinstance(reply, protocol.Progress)]
    assert [(type(reply), reply.id) for reply in ends[:3]] == [
        (protocol.Result, "1"),
        (protocol.ErrorReply, "2"),
        (protocol.Result, "3"),
    ]
    assert ends[3] == protocol.BatchDone(total=3, failed=1)


def test_a_batch_written_beside_its_inputs_does_not_become_its_own_input(batch: Path) -> None:
    (batch / "b.nii.gz").unlink()
    assert _run(batch, "-o", batch, "--confidence") == 0
    once = _names(batch)
    assert len(once) == 2 * 4
    assert _run(batch, "-o", batch, "--confidence") == 0
    assert _names(batch) == once


def test_a_failed_run_in_a_batch_is_code_3(batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: Any, **named: Any) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(command, "run_job", crash)
    assert _run(batch, "-o", tmp_path / "out") == 3
    assert not (tmp_path / "out").exists()


def test_resume_does_only_what_is_missing(
    batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry
) -> None:
    (batch / "b.nii.gz").unlink()
    done: list[str] = []
    real = command.run_job

    def spy(job: Any, **named: Any) -> Any:
        done.append(job.output.name)
        return real(job, **named)

    monkeypatch.setattr(command, "run_job", spy)
    out = tmp_path / "out"

    def runs(*options: str) -> list[str]:
        done.clear()
        assert _run(batch, "-o", out, *options) == 0
        return list(done)

    assert runs("--resume") == ["a.seg.nrrd", "c.seg.nrrd"]
    assert runs("--resume") == []
    assert runs() == ["a.seg.nrrd", "c.seg.nrrd"]
    (out / "c.seg.nrrd").unlink()
    assert runs("--resume") == ["c.seg.nrrd"]
    shutil.copy(batch / "c.nii.gz", batch / "a.nii.gz")
    assert runs("--resume") == ["a.seg.nrrd"]
    assert runs("--resume", "--statistics") == ["a.seg.nrrd", "c.seg.nrrd"]
    publish(registry, "trunk", TRUNK, seed=8)
    assert runs("--resume", "--statistics") == ["a.seg.nrrd", "c.seg.nrrd"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_with_130_and_leaves_nothing(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = command.run_job

    def interrupted(job: Any, **named: Any) -> Any:
        def report(fraction: float, stage: str, remaining_s: float | None) -> None:
            if fraction > 0.3:
                monkeypatch.setattr(command, "run_job", real)
                os.kill(os.getpid(), number) if not named["cancelled"]() else None

        return real(job, **{**named, "report": report})

    monkeypatch.setattr(command, "run_job", interrupted)
    (tmp_path / "out").mkdir()
    assert _run(scan, "-o", tmp_path / "out" / "ct.nii.gz", "--preview") == 130
    assert capsys.readouterr().err == "wbcss: cancelled; nothing was written\n"
    assert _names(tmp_path / "out") == []


def test_a_signal_stops_a_whole_batch(batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    real = command.run_job

    def first_is_interrupted(job: Any, **named: Any) -> Any:
        started.append(job.output.name)
        os.kill(os.getpid(), signal.SIGINT)
        return real(job, **named)

    monkeypatch.setattr(command, "run_job", first_is_interrupted)
    assert _run(batch, "-o", tmp_path / "out") == 130
    assert started == ["a.seg.nrrd"]


def test_an_unexpected_error_is_one_line_and_its_traceback_in_the_log_only(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: Any, **named: Any) -> Any:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(command, "run_job", crash)
    assert _run(scan, "-o", tmp_path / "out.nii.gz") == 3
    assert capsys.readouterr().err == (
        "wbcss: unexpected ZeroDivisionError: by zero; run again with --verbose and report it\n"
    )


def test_a_full_memory_is_said_in_words(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **named: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(command, "run_job", full)
    assert _run(scan, "-o", tmp_path / "out.nii.gz") == 3
    assert capsys.readouterr().err.startswith("wbcss: the memory is full; close other programs")


def test_the_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["segment", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in ("--organs", "--tasks", "--registry", "--device", "--statistics", "--preview", "--confidence"):
        assert option in text
    for option in ("--resume", "--quality", "--series", "--json", "--reference", "--quiet", "--threads"):
        assert option in text


def _dicom_series(folder: Path, **changes: Any) -> Path:
    """The body of the scan as slices of 12 x 10 pixels."""
    hu = scan_voxels((COLUMNS, ROWS, 8)).transpose(2, 1, 0)
    save_series(folder, hu, **{"FrameOfReferenceUID": "1.2.3.9", "PatientSex": "F", **changes})
    return folder


def test_a_dicom_series_gives_a_dicom_seg_beside_the_labels(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series = _dicom_series(tmp_path / "ct")
    assert _run(series, "-o", tmp_path / "out.seg.nrrd", "--dicom-seg") == 0
    assert str(tmp_path / "out.seg.dcm") in capsys.readouterr().out
    labels, _, names = read_labels(tmp_path / "out.seg.nrrd")
    segmentation = highdicom.seg.segread(tmp_path / "out.seg.dcm")
    organs = {item.SegmentNumber: item.TrackingID for item in segmentation.SegmentSequence}
    assert set(organs.values()) == {names[value] for value in np.unique(labels) if value}
    counts = {names[value]: int((labels == value).sum()) for value in np.unique(labels) if value}
    numbers = segmentation.get_volume(combine_segments=True, relabel=False).array
    assert {organs[number]: int((numbers == number).sum()) for number in np.unique(numbers) if number} == counts
    # A run without the option leaves no object that belongs to older labels.
    assert _run(series, "-o", tmp_path / "out.seg.nrrd") == 0
    assert not (tmp_path / "out.seg.dcm").exists()


def test_a_dicom_seg_of_another_input_is_refused_before_the_work(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(scan, "-o", tmp_path / "out.seg.nrrd", "--dicom-seg") == 2
    assert "--dicom-seg needs a folder of DICOM slices as input, got" in capsys.readouterr().err
    assert not (tmp_path / "out.seg.nrrd").exists()
    series = _dicom_series(tmp_path / "ct", FrameOfReferenceUID="")
    assert _run(series, "-o", tmp_path / "out.seg.nrrd", "--dicom-seg") == 2
    assert "lacks FrameOfReferenceUID" in capsys.readouterr().err


def test_a_dicom_series_without_organs_is_told_to_have_no_object(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "write_dicom_seg", lambda *args, **named: ())
    monkeypatch.setattr(delivery, "organ_rows", lambda *args: ())
    assert _run(_dicom_series(tmp_path / "ct"), "-o", tmp_path / "out.seg.nrrd", "--dicom-seg") == 0
    told = capsys.readouterr().out
    assert "no organ was found, so there is no DICOM SEG" in told
    assert "out.seg.dcm" not in told
