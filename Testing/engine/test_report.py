"""The report says what a run used, cost and found, and never whom it was about."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_registry import encoder_card, make_organ, task_card

from wbcss import __version__
from wbcss import report as module
from wbcss.checks import Check
from wbcss.errors import OutputError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel
from wbcss.report import build_report, peak_memory_mib, remove_names, write_report
from wbcss.segment import RunReport, Segmentation
from wbcss.statistics import OrganStatistics
from wbcss.volume import Volume

NAMES = ("DOE^JANE", "Jane", "Doe", "19700131", "jane_doe_ct", "Müller")


def _model() -> LoadedModel:
    cards = {
        TaskId("liver"): task_card(version=2, weights_sha256="a" * 64),
        TaskId("other"): task_card("other", {"spleen": 7}, version=1, weights_sha256="b" * 64),
    }
    encoder = encoder_card(weights_sha256="e" * 64)
    return LoadedModel(network=None, encoder_card=encoder, cards=cards)  # type: ignore[arg-type]


def _segmentation(**changes: Any) -> Segmentation:
    run = {
        "device": "cpu",
        "backend": "torch-float32",
        "model_grid_shape": (4, 5, 6),
        "model_spacing_mm": (3.0, 3.0, 3.0),
        "num_tiles": 8,
        "num_encoder_calls": 4,
        "stage_seconds": {"encode": 1.25, "decode": 0.5},
        "warnings": ("slices are 5 mm apart",),
        "ladder": ("a smaller tile",),
    }
    return Segmentation(
        labels=np.zeros((2, 3, 4), np.uint16),
        confidence=np.zeros((2, 3, 4), np.float16),
        affine=np.eye(4),
        organs=(make_organ("liver", 5), make_organ("spleen", 7)),
        tasks=(TaskId("liver"),),
        report=RunReport(**{**run, **changes}),  # type: ignore[arg-type]
    )


def _row(organ: str, voxels: int, flags: tuple[str, ...] = ()) -> OrganStatistics:
    return OrganStatistics(
        organ=OrganName(organ), voxels=voxels, volume_ml=voxels * 0.027, mean_hu=50.0, sd_hu=4.0,
        mean_confidence=0.9, touches_border=False,
        checks=tuple(Check(flag=flag, reason=flag) for flag in flags),
    )  # fmt: skip


def _report(**changes: Any) -> dict[str, Any]:
    volume = Volume(np.zeros((2, 3, 4), np.int16), np.diag([-0.5, -0.75, 5.0, 1.0]))
    arguments = {
        "volume": volume,
        "segmentation": _segmentation(),
        "model": _model(),
        "statistics": (_row("liver", 1000, ("touches_border",)), _row("spleen", 0)),
        "seconds": {"read": 0.25},
        "warnings": ("two slices are missing",),
    }
    return build_report(**{**arguments, **changes})


def test_a_report_has_the_sections_of_its_schema() -> None:
    assert set(_report()) == {
        "schema", "versions", "system", "device", "input", "model", "run", "seconds", "memory", "organs", "dice",
        "body_part", "warnings",
    }  # fmt: skip
    documented = module.__doc__ or ""
    assert all(f"``{section}``" in documented for section in _report())
    assert _report()["schema"] == 1


def test_versions_are_those_that_run() -> None:
    versions = _report()["versions"]
    assert versions["wbcss"] == __version__
    assert versions["python"] == platform.python_version()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["numpy"] == np.__version__
    assert versions["SimpleITK"]


def test_a_missing_library_is_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIBRARIES", ("no_such_library",))
    assert _report()["versions"]["no_such_library"] is None


def test_the_model_is_named_by_its_hashes_and_only_tasks_that_ran_are_listed() -> None:
    model = _report()["model"]
    assert model["encoder"] == {"name": "tiny", "version": 1, "weights_sha256": "e" * 64}
    assert model["tasks"] == [
        {"task": "liver", "version": 2, "kind": "own", "organs": len(_model().cards[TaskId("liver")].organs),
         "weights_sha256": "a" * 64}
    ]  # fmt: skip


def test_stages_add_up_to_their_total() -> None:
    assert _report()["seconds"] == {"read": 0.25, "encode": 1.25, "decode": 0.5, "total": 2.0}


def test_the_grid_is_described_without_its_place_in_the_scanner() -> None:
    near = Volume(np.zeros((2, 3, 4), np.int16), np.diag([-0.5, -0.75, 5.0, 1.0]))
    far = near.affine.copy()
    far[:3, 3] = (-123.4, 56.7, 890.1)
    report = _report(volume=Volume(near.voxels, far))
    assert report["input"] == {"shape": [2, 3, 4], "spacing_mm": [0.5, 0.75, 5.0], "axes": "LPS", "modality": "CT"}
    assert report["input"] == _report(volume=near)["input"]


def test_device_and_run_are_copied_from_the_run() -> None:
    report = _report()
    assert report["device"] == {
        "name": "cpu", "accelerator": None, "backend": "torch-float32", "ladder": ["a smaller tile"],
    }  # fmt: skip
    assert report["run"] == {
        "model_grid_shape": [4, 5, 6], "model_spacing_mm": [3.0, 3.0, 3.0], "num_tiles": 8, "num_encoder_calls": 4,
    }  # fmt: skip


def test_found_organs_carry_their_flags() -> None:
    organs = _report()["organs"]
    assert organs == {
        "asked": 2, "found": 1, "rows": [{"organ": "liver", "volume_ml": 27.0, "flags": ["touches_border"]}],
    }  # fmt: skip


def test_dice_is_averaged_and_empty_without_a_reference() -> None:
    assert _report()["dice"] == {}
    dice = _report(dice={OrganName("liver"): 0.91, OrganName("spleen"): 0.5})["dice"]
    assert dice == {"mean": 0.705, "organs": {"liver": 0.91, "spleen": 0.5}}


def test_warnings_of_reading_come_before_those_of_the_run() -> None:
    assert _report()["warnings"] == ["two slices are missing", "slices are 5 mm apart"]


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_memory_mib()
    assert before is not None
    assert 20 < before < 1e6
    block = np.ones(64 << 20, np.uint8)
    after = peak_memory_mib()
    assert after is not None
    assert after >= before
    assert _report()["memory"]["peak_mib"] >= block.nbytes / 2**20
    assert _report()["memory"]["peak_accelerator_mib"] is None


@pytest.mark.parametrize(
    "text",
    [
        "cannot trust /home/jane/Doe_Jane/19700131/ct.nii.gz entirely",
        r"cannot trust C:\scans\DOE^JANE\ct.nrrd entirely",
        "series of DOE^JANE has gaps",
        "file jane_doe_ct.nii.gz repeats a slice",
        "IM0001.dcm of Müller has no spacing",
        "born 19700131, slices are missing",
    ],
)
def test_planted_identifiers_never_appear(text: str, tmp_path: Path) -> None:
    report = _report(warnings=(text,), segmentation=_segmentation(warnings=(text,)), private=NAMES)
    write_report(tmp_path / "r.json", report)
    written = (tmp_path / "r.json").read_text(encoding="utf-8").casefold()
    for name in (*NAMES, "home", "scans", "im0001"):
        assert name.casefold() not in written
    assert "name removed" in written


def test_the_report_does_not_know_the_machine_or_its_user(tmp_path: Path) -> None:
    write_report(tmp_path / "r.json", _report())
    written = (tmp_path / "r.json").read_text(encoding="utf-8")
    assert platform.node() not in written
    assert str(Path.home()) not in written
    assert str(tmp_path) not in written


@pytest.mark.parametrize(
    "text",
    [
        "slices are 5 mm apart, the model's are 3 mm",
        "3/4 of the slices were kept",
        "the voxels are 0.9x0.9x3 mm; the result is less exact (ratio 2.5)",
        "HU below -1024 were clipped",
    ],
)
def test_plain_warnings_are_kept_word_for_word(text: str) -> None:
    assert remove_names(text, NAMES) == text


def test_a_private_word_is_removed_only_as_a_word() -> None:
    assert remove_names("Al saw aluminum", ("Al",)) == "(name removed) saw aluminum"
    assert remove_names("a b c", ("a",)) == "a b c"


def test_a_report_is_whole_json_or_none(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_report(path, _report())
    before = path.read_bytes()
    assert json.loads(before) == json.loads(json.dumps(_report() | {"memory": json.loads(before)["memory"]}))
    with pytest.raises(OutputError, match="plain finite JSON values, got"):
        write_report(path, {"value": math.nan})
    with pytest.raises(OutputError, match="not JSON serializable"):
        write_report(path, {"value": object()})
    assert path.read_bytes() == before
    with pytest.raises(OutputError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "r.json", {})
