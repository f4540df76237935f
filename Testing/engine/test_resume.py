"""What counts as done: same input, same model, same options, outputs still there."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tiny_registry import new_registry, publish

from wbcss.errors import VolumeFileError
from wbcss.outputs import OutputPaths
from wbcss.resume import file_sha256, input_sha256, is_finished, model_hashes

MADE = {"input_sha256": "a" * 64, "organs": ("liver",), "quality": "normal"}


@pytest.fixture
def paths(tmp_path: Path) -> OutputPaths:
    paths = OutputPaths(tmp_path / "ct.seg.nrrd")
    paths.labels.write_bytes(b"labels")
    paths.statistics.write_text("organ")
    made = {**MADE, "labels_sha256": hashlib.sha256(b"labels").hexdigest()}
    paths.report.write_text(json.dumps({"made_from": made}))
    return paths


def _is_finished(paths: OutputPaths, **changes: Any) -> bool:
    return is_finished(paths, {**MADE, **changes}, [paths.labels, paths.report, paths.statistics])


def test_an_untouched_output_is_finished(paths: OutputPaths) -> None:
    assert _is_finished(paths)


@pytest.mark.parametrize("change", [{"input_sha256": "b" * 64}, {"organs": None}, {"quality": "best"}, {"new": 1}])
def test_another_input_or_option_is_not_finished(paths: OutputPaths, change: dict[str, Any]) -> None:
    assert not _is_finished(paths, **change)


@pytest.mark.parametrize("missing", ["labels", "report", "statistics"])
def test_a_missing_file_is_not_finished(paths: OutputPaths, missing: str) -> None:
    getattr(paths, missing).unlink()
    assert not _is_finished(paths)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"made_from": 3}', '{"made_from": {}}', "\x00"])
def test_a_report_that_says_nothing_is_not_finished(paths: OutputPaths, text: str) -> None:
    paths.report.write_text(text)
    assert not _is_finished(paths)


def test_labels_older_than_a_report_that_does_not_fit_them_are_not_finished(paths: OutputPaths) -> None:
    paths.labels.write_bytes(b"of an older run")
    report_s = paths.report.stat().st_mtime
    os.utime(paths.labels, (report_s - 60, report_s - 60))
    assert not _is_finished(paths)


def test_labels_that_somebody_corrected_later_are_not_done_again(paths: OutputPaths) -> None:
    paths.labels.write_bytes(b"corrected by hand")
    report_s = paths.report.stat().st_mtime
    os.utime(paths.labels, (report_s + 60, report_s + 60))
    assert _is_finished(paths)


def test_the_fingerprint_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ct.nrrd"
    path.write_bytes(b"x" * 3_000_000)
    assert input_sha256(path) == file_sha256(path) == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_the_fingerprint_of_a_folder_ignores_names_but_no_slice(tmp_path: Path) -> None:
    for folder, names in (("a", "12"), ("b", "21"), ("c", "1")):
        (tmp_path / folder / "sub").mkdir(parents=True)
        for name, content in zip(names, ("one", "two"), strict=False):
            (tmp_path / folder / "sub" / name).write_text(content)
    assert input_sha256(tmp_path / "a") == input_sha256(tmp_path / "b") != input_sha256(tmp_path / "c")


def test_a_missing_input_is_a_volume_file_error(tmp_path: Path) -> None:
    with pytest.raises(VolumeFileError, match=r"cannot read .*gone\.nrrd: No such file"):
        input_sha256(tmp_path / "gone.nrrd")


def test_the_model_is_named_by_the_hashes_of_encoder_and_decoders(tmp_path: Path) -> None:
    registry = new_registry(tmp_path / "registry")
    card = publish(registry, "trunk", {"liver": 5})
    publish(registry, "head", {"brain": 90})
    assert model_hashes(registry, [card.task]) == {
        "encoder": registry.encoder_card().weights_sha256,
        "trunk@1": card.weights_sha256,
    }
