"""One segmentation from file to files: what is written, what is refused early, and what a stop leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_registry import publish
from tiny_scan import AFFINE, HEAD, TRUNK, fix_backend, make_registry, scan_voxels, tiny_volume, write_scan

from wbcss import delivery, job
from wbcss.arrayfile import ArrayFile, read_array, write_array
from wbcss.errors import Cancelled, DeviceError, InputError, OutputError
from wbcss.io.labelmap import read_labels
from wbcss.job import OVERLAP, SegmentJob, is_done, run_job
from wbcss.labels import OrganName, TaskId
from wbcss.loading import load_model
from wbcss.protocol import Result
from wbcss.registry import Registry
from wbcss.segment import segment
from wbcss.warm import WarmModel


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_backend(monkeypatch)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return make_registry(tmp_path_factory.mktemp("models") / "registry")


@pytest.fixture
def plain(tmp_path: Path, registry: Registry) -> SegmentJob:
    scan = write_scan(tmp_path / "in" / "ct.nii.gz")
    (tmp_path / "out").mkdir()
    return SegmentJob(input=scan, output=tmp_path / "out" / "ct.seg.nrrd", registry=registry.root)


def _written(plain: SegmentJob) -> set[str]:
    return {path.name for path in plain.output.parent.iterdir()}


def test_the_labels_are_those_of_the_engine_on_the_grid_of_the_input(plain: SegmentJob, registry: Registry) -> None:
    result = run_job(plain, job_id="7")
    expected = segment(tiny_volume(), load_model(registry))
    labels, affine, names = read_labels(plain.output)
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_allclose(affine, AFFINE, atol=1e-6)
    assert set(names) == {*TRUNK.values(), *HEAD.values()}
    assert result.id == "7"
    counts = {row.organ: row.voxels for row in result.organs}
    assert counts == {organ.name: int((expected.labels == organ.label).sum()) for organ in expected.organs}
    assert _written(plain) == {"ct.seg.nrrd", "ct.report.json"}


def test_everything_that_was_asked_for_is_written_and_listed(plain: SegmentJob) -> None:
    wanted = dataclasses.replace(
        plain, output=plain.output.with_name("ct.nii.gz"), statistics=True, preview=True, confidence=True
    )
    result = run_job(wanted)
    assert _written(plain) == {
        "ct.nii.gz",
        "ct.labels.json",
        "ct.report.json",
        "ct.statistics.csv",
        "ct.preview.png",
        "ct.confidence.nii.gz",
    }
    assert {Path(path).name for path in result.files.values()} == _written(plain)
    with Path(result.files["statistics"]).open(newline="") as stream:
        rows = {row["organ"]: int(row["voxels"]) for row in csv.DictReader(stream)}
    assert rows == {row.organ: row.voxels for row in result.organs}
    assert Path(result.files["preview"]).read_bytes().startswith(b"\x89PNG")


def test_the_report_tells_what_it_was_made_from_and_nothing_about_where(plain: SegmentJob, registry: Registry) -> None:
    text = Path(run_job(plain).files["report"]).read_text(encoding="utf-8")
    made_from = json.loads(text)["made_from"]
    assert made_from["model_sha256"]["encoder"] == registry.encoder_card().weights_sha256
    assert set(made_from["model_sha256"]) == {"encoder", "trunk@1", "head@1"}
    assert str(plain.output.parent.parent) not in text
    assert "ct.nii.gz" not in text


def test_voxels_go_in_and_come_out_by_shared_files(plain: SegmentJob, tmp_path: Path, registry: Registry) -> None:
    voxels = write_array(tmp_path / "in.npy", scan_voxels(), AFFINE)
    shared = dataclasses.replace(plain, input=voxels, output=tmp_path / "out" / "l.npy", confidence=True)
    result = run_job(shared)
    expected = segment(tiny_volume(), load_model(registry))
    assert isinstance(result.labels, ArrayFile)
    np.testing.assert_array_equal(read_array(result.labels), expected.labels)
    np.testing.assert_array_equal(np.load(result.files["confidence"]), expected.confidence)
    assert _written(plain) == {"l.npy", "l.report.json", "l.confidence.npy"}


def test_only_the_decoders_of_the_wanted_organs_are_loaded_and_run(
    plain: SegmentJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wbcss.nn.decoder import Decoder

    channels: set[int] = set()
    features = Decoder.features
    spy = lambda self, skips: channels.add(self.head.out_channels) or features(self, skips)  # noqa: E731
    monkeypatch.setattr(Decoder, "features", spy)
    warm = WarmModel()
    result = run_job(dataclasses.replace(plain, organs=(OrganName("spleen"),)), warm=warm)
    assert channels == {1 + len(TRUNK)} != {1 + len(HEAD)}
    assert [row.organ for row in result.organs] == ["spleen"]
    labels = read_labels(plain.output).labels
    assert set(np.unique(labels)) <= {0, TRUNK["spleen"]}
    both = warm.load(Registry(plain.registry), (TaskId("trunk"),))
    assert tuple(both.cards) == (TaskId("trunk"),)


def test_a_task_on_request_is_left_out_and_the_report_says_how_to_ask_for_it(plain: SegmentJob, tmp_path: Path) -> None:
    usual = run_job(plain)
    labels, hashes = read_labels(plain.output).labels, _made_from(usual)["model_sha256"]
    registry = make_registry(tmp_path / "models" / "registry")
    publish(registry, "lesions", {"liver": 5, "x_tumor": 10000}, seed=3, on_request=True)
    wanted = dataclasses.replace(plain, registry=registry.root)
    result = run_job(wanted)
    np.testing.assert_array_equal(read_labels(plain.output).labels, labels)
    assert _made_from(result)["model_sha256"] == hashes
    note = (
        "left out, because it runs on request: lesions (liver, x_tumor); to run everything: --tasks trunk,head,lesions"
    )
    assert result.warnings == (*usual.warnings, note)
    report = json.loads(Path(result.files["report"]).read_text())
    assert report["model"]["left_out"] == [{"task": "lesions", "version": 1, "organs": ["liver", "x_tumor"]}]
    assert note in report["warnings"]
    assert is_done(wanted)
    for named in ({"tasks": (TaskId("lesions"),)}, {"organs": (OrganName("x_tumor"),)}):
        asked = run_job(dataclasses.replace(wanted, **named))
        report = json.loads(Path(asked.files["report"]).read_text())
        assert [task["task"] for task in report["model"]["tasks"]] == ["lesions"]
        assert report["model"]["left_out"] == []
        assert note not in asked.warnings


def _made_from(result: Result) -> dict[str, Any]:
    made_from: dict[str, Any] = json.loads(Path(result.files["report"]).read_text())["made_from"]
    return made_from


def test_quality_is_the_overlap_of_the_tiles(plain: SegmentJob, monkeypatch: pytest.MonkeyPatch) -> None:
    import wbcss.segment

    seen: list[float] = []
    real = wbcss.segment.segment

    def spy(*args: Any, **named: Any) -> Any:
        seen.append(named["options"].overlap)
        return real(*args, **named)

    monkeypatch.setattr(wbcss.segment, "segment", spy)
    for quality in OVERLAP:
        run_job(dataclasses.replace(plain, quality=quality))
    assert seen == [0.25, 0.5, 0.625]


def test_the_own_result_as_reference_scores_one(plain: SegmentJob) -> None:
    run_job(plain)
    again = dataclasses.replace(plain, output=plain.output.with_name("again.seg.nrrd"), reference=plain.output)
    result = run_job(again)
    assert {row.dice for row in result.organs if row.voxels} == {1.0}
    assert json.loads(Path(result.files["report"]).read_text())["dice"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"organs": ("livr",)}, InputError, "unknown organ 'livr'"),
        ({"tasks": ("feet",)}, InputError, "unknown task 'feet'"),
        ({"device": "tpu"}, InputError, "got 'tpu'"),
        ({"device": "cuda:99"}, DeviceError, "'cuda:99'"),
        ({"output": Path("/nowhere/at/all/ct.nii.gz")}, OutputError, "/nowhere/at/all"),
        ({"output": Path("/nowhere/ct.mha")}, OutputError, r"got 'ct\.mha'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_input_is_read(
    plain: SegmentJob, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], error: type[Exception], complaint: str
) -> None:
    monkeypatch.setattr(job, "read_volume", lambda *args, **named: pytest.fail("the input was read"))
    with pytest.raises(error, match=complaint):
        run_job(dataclasses.replace(plain, **change))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"quality": "superb"}, "fast, normal, best, got 'superb'"),
        ({"organs": ()}, "organs must name at least one"),
        ({"tasks": ()}, "tasks must name at least one"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_a_job_that_makes_no_sense_cannot_be_made(plain: SegmentJob, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        dataclasses.replace(plain, **change)


def test_a_stop_at_any_moment_leaves_the_old_outputs_whole(plain: SegmentJob) -> None:
    run_job(plain)
    before = {path: path.read_bytes() for path in plain.output.parent.iterdir()}
    calls = 0

    def count() -> bool:
        nonlocal calls
        calls += 1
        return False

    run_job(dataclasses.replace(plain, output=plain.output.parent.parent / "count.nii.gz"), cancelled=count)
    assert calls > 10
    for stop_at in {0, 2, calls // 2, calls - 1}:
        asked = iter(range(calls + 1))
        with pytest.raises(Cancelled):
            run_job(dataclasses.replace(plain, preview=True), cancelled=lambda: next(asked) >= stop_at)  # noqa: B023
        assert {path: path.read_bytes() for path in plain.output.parent.iterdir()} == before


def test_a_failing_writer_leaves_nothing(plain: SegmentJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(delivery, "write_preview", full)
    with pytest.raises(OutputError, match=r"ct\.seg\.nrrd: the disk is full"):
        run_job(dataclasses.replace(plain, preview=True))
    assert _written(plain) == set()


def test_progress_rises_to_one_and_names_the_stages(plain: SegmentJob) -> None:
    told: list[tuple[float, str]] = []
    run_job(plain, report=lambda fraction, stage, _left: told.append((fraction, stage)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert told[0] == (0.0, "read")
    assert told[-1] == (1.0, "done")
    assert {"load model", "write"} < {stage for _, stage in told}


def test_a_job_is_done_until_input_options_or_model_change(plain: SegmentJob, tmp_path: Path) -> None:
    own = dataclasses.replace(plain, registry=make_registry(tmp_path / "own").root)
    assert not is_done(own)
    run_job(own)
    assert is_done(own)
    assert is_done(dataclasses.replace(own, device="cuda", threads=3))
    assert not is_done(dataclasses.replace(own, statistics=True))
    assert not is_done(dataclasses.replace(own, quality="best"))
    assert not is_done(dataclasses.replace(own, organs=(OrganName("liver"),)))
    other = write_scan(tmp_path / "other.nii.gz", (12, 12, 14))
    assert not is_done(dataclasses.replace(own, input=other))
    from tiny_registry import publish

    publish(Registry(own.registry), "trunk", TRUNK, seed=9)
    assert not is_done(own)
