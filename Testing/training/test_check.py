"""The case check: what stops a training, what is only said, and who may read it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cases
from broken_cases import BROKEN_CASES, BrokenCases
from tiny_cases import AFFINE, hu, labels, write_list

from wbcss.errors import Cancelled, CaseError
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName
from wbcss_training.annotation import Case
from wbcss_training.cases import read_case_list
from wbcss_training.check import CheckReport, check_cases
from wbcss_training.cli.main import main
from wbcss_training.findings import Finding


def everything_in(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def kinds(report: CheckReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def checked(path: Path) -> CheckReport:
    return check_cases(read_case_list(path))


def only(report: CheckReport, kind: str) -> Finding:
    (finding,) = (finding for finding in report.findings if finding.kind == kind)
    return finding


def with_first_labels(folder: Path, array: Any, **changes: Any) -> CheckReport:
    """Three cases, the first with other labels."""
    entries = tiny_cases.write_pairs(folder)
    write_volume(folder / entries[0]["labels"], array, AFFINE)
    return checked(write_list(folder, entries, **changes))


def test_at_least_fifteen_kinds_of_broken_cases_are_tried() -> None:
    assert len(BROKEN_CASES) >= 40
    assert len({broken.kind for broken in BROKEN_CASES}) >= 16


@pytest.mark.parametrize("broken", BROKEN_CASES, ids=lambda broken: broken.what)
def test_broken_cases_are_told_in_one_line_and_nothing_is_written(
    broken: BrokenCases, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(argument) for argument in broken.make(tmp_path)]
    before = everything_in(tmp_path)
    assert main(["check", "--cases", *arguments]) == 2
    told = capsys.readouterr()
    assert everything_in(tmp_path) == before
    complaint = told.err.splitlines()[-1]
    assert complaint.startswith("wbcss-train: ")
    if not broken.kind:
        assert told.err.count("\n") == 1
        assert re.search(broken.says, complaint)
        return
    assert "the case check found" in complaint
    findings = [line for line in told.out.splitlines() if line.startswith(f"  {broken.kind}: ")]
    assert any(re.search(broken.says, line) for line in findings), told.out
    assert told.out.endswith("not fit for training\n")


@pytest.mark.parametrize("broken", [b for b in BROKEN_CASES if b.kind], ids=lambda broken: broken.what)
def test_the_json_of_broken_cases_names_nobody(broken: BrokenCases, tmp_path: Path) -> None:
    report = checked(Path(broken.make(tmp_path)[0]))
    text = json.dumps(report.to_json())
    assert broken.kind in {row["kind"] for row in report.to_json()["errors"]}
    assert not [name for name in ("smith", "s0000", "c_0", str(tmp_path), "nii") if name in text]


def test_good_cases_are_fit_for_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_list(tmp_path)
    report = checked(path)
    assert report.findings == ()
    report.raise_if_broken()
    count = report.organs[OrganName("liver")]
    assert (count.annotated, count.present) == (3, 3)
    assert count.volumes_ml == pytest.approx([6 * 4 * 5 * 0.216] * 3)
    assert main(["check", "--cases", str(path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"liver +3 +3 +25\.9\n", shown)
    assert shown.endswith("fit for training\n")


def test_only_chosen_organs_are_checked(tmp_path: Path) -> None:
    values = labels()
    values[values == 3] = 0  # nobody asked for the liver
    values[20, 10, 10] = 3
    report = with_first_labels(tmp_path, values)
    assert only(report, "organ_tiny").organ == "liver"
    cases = read_case_list(tmp_path / "list.json")
    assert check_cases(cases, organs=[OrganName("kidney_left")]).findings == ()


def test_an_organ_that_no_case_names_is_an_error(tmp_path: Path) -> None:
    report = check_cases(read_case_list(write_list(tmp_path)), organs=[OrganName("spleen")])
    finding = only(report, "organ_missing")
    assert finding.message == "spleen is to be learned, but no case names it; got kidney_left, kidney_right, liver"
    with pytest.raises(CaseError, match=r"the case check found 4 errors: case 1: .* \(and 3 more; `wbcss-train check`"):
        report.raise_if_broken()


def test_an_organ_made_up_in_code_is_an_error(tmp_path: Path) -> None:
    tiny_cases.write_pairs(tmp_path)
    case = Case(
        image_path=tmp_path / "smith_0.nii.gz",
        labels_path=tmp_path / "smith_0_seg.nii.gz",
        values={1: OrganName("kidney_left"), 2: OrganName("kidney_right"), 3: OrganName("livr")},
    )
    assert "lacks: 'livr' (near: liver)" in only(check_cases([case]), "organ_unknown").message


def test_no_case_at_all_is_an_error() -> None:
    with pytest.raises(CaseError, match="found 1 error: expected at least one case, got none"):
        check_cases([]).raise_if_broken()


def _pieces(values: Any) -> None:
    values[values == 3] = 0
    values[13:16, 10:14, 8:13] = 3
    values[4:7, 10:14, 8:11] = 3


def _tiny(values: Any) -> None:
    values[values == 3] = 0
    values[15, 10, 10:13] = 3


def _half_outside(values: Any) -> None:
    values[values == 3] = 0
    values[0, 6:12, 5:8] = values[3, 6:12, 5:8] = 3


def _cut_in_the_air(values: Any) -> None:
    values[values == 3] = 0
    values[0, 6:12, 5:8] = 3


def _empty(values: Any) -> None:
    values[:] = 0


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (_pieces, "organ_in_pieces", "liver should be in one piece, got 2 pieces, the largest with 62% of its voxels"),
        (_tiny, "organ_tiny", "liver should have at least 10 voxels, got 3"),
        (_half_outside, "organ_outside_body", "liver must lie in the body, got 50% of its voxels in the air"),
        (_cut_in_the_air, "organ_outside_body", "liver must lie in the body, got 100% of its voxels in the air"),
        (_empty, "nothing_annotated", "no voxel of an organ that is learned, so all of them are taken as not there"),
    ],
)
def test_doubtful_labels_are_warned_of(tmp_path: Path, change: Callable[[Any], None], kind: str, message: str) -> None:
    values = labels()
    change(values)
    report = with_first_labels(tmp_path, values)
    finding = only(report, kind)
    assert (finding.severity, finding.case) == ("warning", 1)
    assert message in finding.message
    report.raise_if_broken()


@pytest.mark.parametrize("flip", [False, True])
def test_sides_are_judged_in_the_patient_and_not_in_the_array(tmp_path: Path, flip: bool) -> None:
    """The same body stored from right to left is as right as the other one."""
    for number in range(3):
        affine, image, values = AFFINE.copy(), hu(number), labels()
        if flip:
            affine[0, 0], affine[0, 3] = -6.0, AFFINE[0, 3] + 6 * (image.shape[0] - 1)
            image, values = image[::-1], values[::-1]
        write_volume(tmp_path / f"{number}.nii.gz", image, affine)
        write_volume(tmp_path / f"{number}_seg.nii.gz", values, affine)
    entries = [{"image": f"{n}.nii.gz", "labels": f"{n}_seg.nii.gz"} for n in range(3)]
    assert checked(write_list(tmp_path, entries)).findings == ()
    organs = {"1": "kidney_right", "2": "kidney_left", "3": "liver"}
    assert kinds(checked(write_list(tmp_path, entries, organs=organs))) == {"sides_swapped"}


def test_a_lone_organ_on_the_wrong_side_is_warned_of(tmp_path: Path) -> None:
    values = np.where(labels() == 1, 1, 0).astype(np.uint8)
    entries = tiny_cases.write_pairs(tmp_path)
    for entry in entries:
        write_volume(tmp_path / entry["labels"], values, AFFINE)
    assert checked(write_list(tmp_path, entries, organs={"1": "kidney_left"})).findings == ()
    report = checked(write_list(tmp_path, entries, organs={"1": "kidney_right"}))
    assert [finding.severity for finding in report.findings] == ["warning"] * 3
    # The kidney's center is voxel 6.5, the body's 11.5; voxels are 6 mm wide.
    assert "got it 30 mm to the left of the middle" in report.findings[0].message


def test_organs_of_many_parts_may_be_in_pieces(tmp_path: Path) -> None:
    values = labels()
    _pieces(values)
    report = with_first_labels(
        tmp_path, values, organs={"1": "kidney_left", "2": "kidney_right", "3": "costal_cartilages"}
    )
    assert report.findings == ()


def test_organs_of_some_cases_only_are_told(tmp_path: Path) -> None:
    values = labels()
    values[values == 3] = 0
    report = with_first_labels(tmp_path, values, absent="unknown")
    assert only(report, "organ_partly_annotated").message.startswith(
        "liver is annotated in 2 of 3 cases; in the others"
    )
    assert report.organs[OrganName("liver")].annotated == 2
    assert with_first_labels(tmp_path, values).findings == ()  # not there, which is an annotation too


@pytest.mark.parametrize(("count", "told"), [(5, True), (4, False)])
def test_an_organ_much_larger_than_in_the_other_cases_is_told(tmp_path: Path, count: int, told: bool) -> None:
    entries = tiny_cases.write_pairs(tmp_path, count=count)
    values = labels()
    values[9:15, 4:14, :] = 3  # 840 voxels beside 80 that remain, where 120 are usual
    write_volume(tmp_path / entries[1]["labels"], values, AFFINE)
    report = checked(write_list(tmp_path, entries))
    assert kinds(report) == ({"organ_too_large"} if told else set())
    if told:
        finding = only(report, "organ_too_large")
        assert (finding.case, finding.organ) == (2, "liver")
        assert "liver measures 25.9 ml in the median case, got 199 ml" in finding.message


def test_copies_and_further_scans_of_a_patient_are_told(tmp_path: Path) -> None:
    entries = tiny_cases.write_pairs(tmp_path, count=4)
    (tmp_path / "smith_1.nii.gz").write_bytes((tmp_path / "smith_0.nii.gz").read_bytes())
    entries[3]["patient"] = "smith_2"
    report = checked(write_list(tmp_path, entries))
    assert only(report, "duplicate_image").message.endswith("got the image of case 1 again; it counts twice")
    assert only(report, "duplicate_patient").message.startswith("this is the same patient as case 3;")
    assert report.errors == ()


def test_few_patients_are_told(tmp_path: Path) -> None:
    report = checked(write_list(tmp_path, tiny_cases.write_pairs(tmp_path, count=2)))
    assert (
        "at least 3 patients are needed to hold one out for validation, got 2" in only(report, "too_few_cases").message
    )


def test_masks_that_overlap_are_told_and_the_later_one_wins(tmp_path: Path) -> None:
    folder = tiny_cases.write_totalsegmentator(tmp_path)
    both = (labels() == 3).astype(np.uint8)
    both[15:17, 5:9, 4:9] = 1
    write_volume(folder / "s0002/segmentations/liver.nii.gz", both, AFFINE)
    finding = only(checked(folder), "labels_overlap")
    assert (finding.case, finding.severity) == (3, "warning")
    assert "got 40 of kidney_right that are liver too; liver is taken" in finding.message


@pytest.mark.parametrize(("spacing_mm", "told"), [(0.1, "got 0.1x6x6 mm"), (12.0, "got 12x6x6 mm")])
def test_unusual_spacing_is_warned_of(tmp_path: Path, spacing_mm: float, told: str) -> None:
    affine = AFFINE.copy()
    affine[0, 0] = spacing_mm
    entries = tiny_cases.write_pairs(tmp_path)
    for name, array in (("image", hu()), ("labels", labels())):
        write_volume(tmp_path / entries[0][name], array, affine)
    finding = only(checked(write_list(tmp_path, entries)), "image_geometry")
    assert finding.severity == "warning"
    assert told in finding.message


def test_a_crop_without_air_and_a_channel_of_unknown_kind_are_warned_of(tmp_path: Path) -> None:
    folder = tiny_cases.write_nnunet(tmp_path, channel_names={"0": "zscore"})
    write_volume(folder / "imagesTr/c_0_0000.nii.gz", np.maximum(hu(), -150).astype(np.int16), AFFINE)
    report = checked(folder)
    assert report.errors == ()
    assert "got values from -150 to" in only(report, "image_not_hu").message
    assert sum("a channel called 'zscore'" in finding.message for finding in report.warnings) == 3


def test_a_report_can_be_written_and_read_by_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_list(tmp_path, tiny_cases.write_pairs(tmp_path, count=2))
    out = tmp_path / "report.json"
    assert main(["check", "--cases", str(path), "--json", "--report", str(out)]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"fraction": 0.0, "stage": "checking case 1 of 2"}
    assert lines[-1] == json.loads(out.read_text())
    assert lines[-1]["organs"]["liver"] == {"annotated": 2, "present": 2, "volume_ml": [25.92, 25.92]}
    assert [row["kind"] for row in lines[-1]["warnings"]] == ["too_few_cases"]


def test_a_long_report_shows_the_first_of_a_kind(tmp_path: Path) -> None:
    tiny_cases.write_pairs(tmp_path, count=1)
    one = {"image": "smith_0.nii.gz", "labels": "smith_0_seg.nii.gz"}
    table = checked(write_list(tmp_path, [{**one, "patient": str(number)} for number in range(8)])).table()
    assert table.count("  duplicate_image: case") == 5
    assert "  duplicate_image: and 2 more like these (--report FILE lists all)\n" in table
    assert "case 2 (smith_0.nii.gz): every image should be listed once" in table


def test_a_check_can_be_stopped(tmp_path: Path) -> None:
    cases = read_case_list(write_list(tmp_path))
    told: list[str] = []
    with pytest.raises(Cancelled, match="nothing was written"):
        check_cases(cases, progress=lambda _, stage: told.append(stage), cancelled=lambda: len(told) == 2)
    assert told == ["checking case 1 of 3", "checking case 2 of 3"]
