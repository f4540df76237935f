from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from analytic_model import Thresholds
from level_model import REGIONS, SCALE_CM, body, hu_of, level_model, levels_of

from wbcss.bodypart import MAX_DOUBT_CM, SURE_DOUBT_CM, observation_weight
from wbcss.catalogue import catalogue
from wbcss.labels import OrganName, TaskId
from wbcss.levels import LevelRange
from wbcss.loading import LoadedModel
from wbcss.nn.encoder import Encoder
from wbcss.report import build_report
from wbcss.segment import Segmentation, SegmentOptions, segment

PLANES = 96
FIRST_CM = 60.0
LIVER, SPLEEN = OrganName("liver"), OrganName("spleen")
TRUNK, LEGS = TaskId("trunk"), TaskId("legs")
TASKS = {"trunk": {"liver": -900.0}, "legs": {"spleen": -900.0}}
"""Both tasks find their organ in every voxel of the body."""

TORCH = SegmentOptions(backend="torch", threads=1)
OFF = dataclasses.replace(TORCH, body_part=False)
MARGIN_CM = 0.5
SLACK_CM = 0.6
"""Levels are read off slabs of two planes, and the curve is a line through them."""


def a_model(ranges: dict[str, LevelRange] | None = None) -> LoadedModel:
    return level_model(TASKS, {"liver": (62.0, 70.0), "spleen": (75.0, 80.0)} if ranges is None else ranges)


def found(result: Segmentation, organ: OrganName) -> np.ndarray:
    """Levels of the planes that hold ``organ``."""
    planes = (result.labels == catalogue()[organ].label).any(axis=(0, 1))
    return levels_of(PLANES, FIRST_CM)[planes]


def decoder_runs(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> dict[TaskId, int]:
    runs = dict.fromkeys(model.cards, 0)

    def count(task: TaskId) -> None:
        runs[task] += 1

    for task in model.cards:
        model.network.decoder(task).stages[0].register_forward_hook(lambda *_, task=task: count(task))
    return runs


def test_organs_are_dropped_out_of_their_range_and_kept_within(rng: np.random.Generator) -> None:
    model = level_model({"trunk": TASKS["trunk"]}, {"liver": (62.0, 70.0)})
    volume = body(FIRST_CM, PLANES)
    everywhere = segment(volume, model, options=OFF)
    assert len(found(everywhere, LIVER)) == PLANES
    gated = segment(volume, model, options=TORCH)
    levels = found(gated, LIVER)
    assert levels.min() == pytest.approx(62.0 - MARGIN_CM, abs=SLACK_CM)
    assert levels.max() == pytest.approx(70.0 + MARGIN_CM, abs=SLACK_CM)
    report = gated.report.body_part
    assert report is not None
    dropped = (everywhere.labels != gated.labels).sum()
    # Planes of tiles that were skipped altogether were never claimed.
    assert 0 < report.dropped_voxels[LIVER] <= dropped
    assert (gated.confidence[gated.labels == 0] == 1).all()


def test_decoders_are_not_run_on_tiles_where_none_of_their_organs_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_model()
    runs = decoder_runs(model, monkeypatch)
    volume = body(FIRST_CM, PLANES)
    segment(volume, model, options=OFF)
    full = dict(runs)
    result = segment(volume, model, options=TORCH)
    report = result.report.body_part
    assert report is not None
    for task in (TRUNK, LEGS):
        ran = runs[task] - full[task]
        assert ran + report.skipped_tiles[task] == full[task] == result.report.num_tiles
        assert 0 < ran < full[task]


def test_what_lies_within_is_bit_for_bit_what_it_is_without_the_check() -> None:
    model, volume = a_model(), body(FIRST_CM, PLANES)
    on, off = (segment(volume, model, tasks=[TRUNK], options=options) for options in (TORCH, OFF))
    kept = on.labels > 0
    assert kept.any()
    np.testing.assert_array_equal(on.labels[kept], off.labels[kept])
    inside = np.flatnonzero(kept.all(axis=(0, 1)))[4:-4]
    np.testing.assert_allclose(on.confidence[:, :, inside], off.confidence[:, :, inside], atol=2e-3)


def test_the_encoder_runs_as_often_with_the_check_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, x: (runs.append(1), forward(self, x))[1])
    model, volume = a_model(), body(FIRST_CM, PLANES)
    off = segment(volume, model, options=OFF)
    assert len(runs) == off.report.num_encoder_calls
    on = segment(volume, model, options=TORCH)
    assert len(runs) == 2 * off.report.num_encoder_calls == 2 * on.report.num_encoder_calls


def test_a_tasks_answer_does_not_depend_on_the_ranges_of_another() -> None:
    """Law 1 for the gate: what the trunk says is the same alone and beside any other task."""
    volume = body(FIRST_CM, PLANES)
    alone = segment(volume, a_model(), tasks=[TRUNK], options=TORCH)
    for spleen in ((0.0, 1.0), (75.0, 80.0)):
        both = segment(volume, a_model({"liver": (62.0, 70.0), "spleen": spleen}), options=TORCH)
        np.testing.assert_array_equal(found(both, LIVER), found(alone, LIVER))


CONTRADICTING = {"liver": (40.0, 95.0), "spleen": (10.0, 25.0)}
"""A task that knows an organ of every level of the scan, and finds nothing but another that should lie in the neck."""

KIDNEY = OrganName("kidney_left")
WRONG: dict[str, Thresholds] = {"spleen": -900.0, "liver": 3000.0}
KIDNEYS: dict[str, Thresholds] = {"kidney_left": -900.0}


@pytest.fixture
def one_organ_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """To have a say: these tasks know one organ or two."""
    monkeypatch.setattr("wbcss.bodyvote.KNOWN_ORGANS", 1)


@pytest.mark.usefixtures("one_organ_is_enough")
def test_a_task_that_could_find_other_organs_here_overrules_the_levels() -> None:
    model = level_model({"trunk": WRONG}, CONTRADICTING)
    volume = body(FIRST_CM, PLANES)
    off, result = (segment(volume, model, options=options) for options in (OFF, TORCH))
    np.testing.assert_array_equal(result.labels, off.labels)
    assert len(found(result, SPLEEN)) == PLANES
    report = result.report.body_part
    assert report is not None
    assert report.overruled_by == TRUNK
    assert report.outside == ()
    assert not report.dropped_voxels
    assert report.skipped_tiles == {TRUNK: 0}
    assert any("the organs that trunk finds do not fit the part of the body" in text for text in result.report.warnings)
    assert (report.to_json()["overruled_by"], report.to_json()["left_alone"]) == ("trunk", ["trunk"])
    assert not report.is_trusted
    # Both passes count.
    assert result.report.num_encoder_calls == 2 * off.report.num_encoder_calls


def test_a_task_that_knows_little_of_these_levels_has_no_say() -> None:
    """A jaw in an abdomen is an error of the task, not of the levels."""
    result = segment(body(FIRST_CM, PLANES), a_model({"spleen": (10.0, 25.0)}), tasks=[LEGS], options=TORCH)
    assert len(found(result, SPLEEN)) == 0
    assert result.report.body_part is not None
    assert result.report.body_part.overruled_by == ""


DOUBT_FACTOR = 3.5 / SCALE_CM * float(np.sqrt(PLANES / 2))
"""A head that is too sure by so much leaves a doubt of 3.5 cm about a curve through the 48 slabs of the scan."""


@pytest.mark.usefixtures("one_organ_is_enough")
@pytest.mark.parametrize("confirmed", [False, True])
def test_a_curve_in_doubt_decides_only_what_organs_confirm(confirmed: bool) -> None:
    """The trunk finds its liver where it belongs, or knows nothing of these levels; later legs find a spleen."""
    tasks = {"trunk": TASKS["trunk"], "legs": TASKS["legs"]}
    liver = (40.0, 120.0) if confirmed else (300.0, 340.0)
    model = level_model(tasks, {"liver": liver, "spleen": (300.0, 340.0)})
    assert model.levels is not None
    card = dataclasses.replace(model.levels.card, scale_factor=DOUBT_FACTOR)
    model = dataclasses.replace(model, levels=dataclasses.replace(model.levels, card=card))
    result = segment(body(FIRST_CM, PLANES), model, options=TORCH)
    report = result.report.body_part
    assert report is not None
    assert SURE_DOUBT_CM < report.doubt_cm < MAX_DOUBT_CM
    assert report.left_alone == (() if confirmed else (TRUNK, LEGS))
    assert report.overruled_by == ""
    assert report.is_trusted is confirmed
    told = [text for text in result.report.warnings if "its levels are in doubt by" in text]
    assert bool(told) is not confirmed
    off = segment(body(FIRST_CM, PLANES), model, options=OFF)
    if confirmed:  # but for the first planes, when too few slabs had been read to decide anything
        assert set(found(result, SPLEEN)) < set(found(off, SPLEEN))
        assert len(found(result, SPLEEN)) + len(found(result, LIVER)) == PLANES
    else:
        np.testing.assert_array_equal(result.labels, off.labels)


@pytest.mark.usefixtures("one_organ_is_enough")
@pytest.mark.parametrize("is_first", [False, True])
def test_a_task_that_overrules_the_levels_speaks_for_later_ones_and_never_for_earlier_ones(is_first: bool) -> None:
    """Law 1 for the vote: a task that is added changes nothing in those that were there."""
    tasks = {"trunk": WRONG, "legs": KIDNEYS} if is_first else {"legs": KIDNEYS, "trunk": WRONG}
    model = level_model(tasks, {**CONTRADICTING, "kidney_left": (75.0, 80.0)})
    volume = body(FIRST_CM, PLANES)
    alone, both = (segment(volume, model, tasks=tasks, options=TORCH) for tasks in ([LEGS], [LEGS, TRUNK]))
    assert 0 < len(found(alone, KIDNEY)) < PLANES
    before, report = alone.report.body_part, both.report.body_part
    assert before is not None
    assert report is not None
    assert report.overruled_by == TRUNK
    dropped = {} if is_first else {KIDNEY: before.dropped_voxels[KIDNEY]}
    assert report.dropped_voxels == dropped


@pytest.mark.usefixtures("one_organ_is_enough")
@pytest.mark.parametrize("ranges", [CONTRADICTING, {"liver": (40.0, 95.0), "spleen": (75.0, 80.0)}])
def test_an_organ_is_the_same_alone_and_with_others_of_its_task(ranges: dict[str, LevelRange]) -> None:
    model = level_model({"trunk": WRONG}, ranges)
    volume = body(FIRST_CM, PLANES)
    alone, both = (segment(volume, model, organs=organs, options=TORCH) for organs in ([SPLEEN], None))
    np.testing.assert_array_equal(found(alone, SPLEEN), found(both, SPLEEN))
    assert len(found(alone, SPLEEN)) > 0


def test_an_organ_without_a_range_is_kept_wherever_it_is_found() -> None:
    volume = body(FIRST_CM, PLANES)
    result = segment(volume, a_model({"spleen": (75.0, 80.0)}), tasks=[TRUNK], options=TORCH)
    assert len(found(result, LIVER)) == PLANES
    assert result.report.body_part is not None
    assert result.report.body_part.skipped_tiles == {TRUNK: 0}


def test_ranges_of_a_card_go_before_those_of_the_head_if_they_were_learned_with_it() -> None:
    model = a_model({"liver": (0.0, 5.0)})
    assert model.levels is not None
    levels = dataclasses.replace(model.levels, card=dataclasses.replace(model.levels.card, weights_sha256="a" * 64))
    learned = {"head_sha256": "a" * 64, "ranges_cm": {"liver": [62.0, 70.0]}}
    for sha256, expected in (("a" * 64, True), ("b" * 64, False)):
        card = dataclasses.replace(model.cards[TRUNK], body_part={**learned, "head_sha256": sha256})
        changed = dataclasses.replace(model, levels=levels, cards={**model.cards, TRUNK: card})
        result = segment(body(FIRST_CM, PLANES), changed, tasks=[TRUNK], options=TORCH)
        assert (len(found(result, LIVER)) > 0) is expected


def test_a_scan_upside_down_is_told_and_left_as_it_is() -> None:
    result = segment(body(FIRST_CM, PLANES, is_reversed=True), a_model(), options=TORCH)
    report = result.report.body_part
    assert report is not None
    assert report.is_reversed
    assert not report.is_trusted
    assert any("the scan seems to be upside down" in text for text in result.report.warnings)
    assert report.outside == ()


def test_levels_that_contradict_each_other_decide_nothing(rng: np.random.Generator) -> None:
    volume = body(FIRST_CM, PLANES)
    order = rng.permutation(PLANES // 4)
    wild = volume.voxels.reshape(10, 8, PLANES // 4, 4)[:, :, order].reshape(volume.voxels.shape)
    wild = (wild.astype(np.int32) + rng.integers(-300, 300, PLANES)).clip(-400, 900).astype(np.int16)
    result = segment(dataclasses.replace(volume, voxels=wild), a_model(), options=TORCH)
    assert any("its levels are in doubt by" in text for text in result.report.warnings)
    assert result.report.body_part is not None
    assert not result.report.body_part.is_trusted


def test_what_was_dropped_by_a_curve_that_is_not_trusted_in_the_end_comes_back(rng: np.random.Generator) -> None:
    """The lower third of the scan is read well, which is all that is known when its planes are finished."""
    volume = body(FIRST_CM, PLANES)
    voxels = volume.voxels.copy()
    upper = np.arange(PLANES // 3, PLANES)
    voxels[:, :, upper] = hu_of(rng.uniform(50.0, 150.0, len(upper) // 4)).repeat(4)
    model = a_model({"liver": (20.0, 30.0), "spleen": (20.0, 30.0)})
    lower = segment(dataclasses.replace(volume, voxels=voxels[:, :, : PLANES // 3]), model, options=TORCH)
    assert not lower.labels.any(), "this third alone is believed, and neither organ can be there"
    on, off = (segment(dataclasses.replace(volume, voxels=voxels), model, options=options) for options in (TORCH, OFF))
    assert on.report.body_part is not None
    assert not on.report.body_part.is_trusted
    assert set(on.report.body_part.left_alone) == {TRUNK, LEGS}
    np.testing.assert_array_equal(on.labels, off.labels)
    assert any("its levels are in doubt by" in text for text in on.report.warnings)


def test_an_answer_counts_as_much_as_its_scale_and_the_heads_factor_allow() -> None:
    assert observation_weight(70.0, 2.0, 1.0) == 1 / 2.0
    assert observation_weight(70.0, 2.0, 5.0) == 1 / 10.0
    assert observation_weight(70.0, 40.0, 1.0) == 0.0
    assert observation_weight(float("nan"), 2.0, 1.0) == 0.0


def test_a_scan_of_a_few_centimeters_is_told_to_be_one() -> None:
    result = segment(body(72.0, 20), a_model(), options=TORCH)
    assert any("the scan shows 6 cm of the body only (pelvis)" in text for text in result.report.warnings)


def test_the_report_says_which_part_of_the_body_was_seen() -> None:
    result = segment(body(FIRST_CM, PLANES), a_model(), options=TORCH)
    report = result.report.body_part
    assert report is not None
    assert report.levels_cm == pytest.approx((FIRST_CM, FIRST_CM + 0.3 * PLANES), abs=SLACK_CM)
    assert report.region_names == ("abdomen", "pelvis")
    assert report.regions["pelvis"] == pytest.approx((88.8 - 70) / (89 - 70), abs=0.05)
    assert set(report.regions) == set(REGIONS)
    assert report.outside == ()
    heights, levels = np.array(report.curve).T
    assert (np.diff(heights) > 0).all()
    assert (np.diff(levels) < 0).all()
    full = build_report(volume=body(FIRST_CM, PLANES), segmentation=result, model=a_model())
    assert full["body_part"]["shows"] == ["abdomen", "pelvis"]


def test_organs_that_cannot_lie_within_the_scan_are_named() -> None:
    result = segment(body(FIRST_CM, PLANES), a_model({"liver": (62.0, 70.0), "spleen": (5.0, 9.0)}), options=TORCH)
    assert result.report.body_part is not None
    assert result.report.body_part.outside == (SPLEEN,)


def test_a_registry_without_a_head_is_segmented_as_before() -> None:
    model = dataclasses.replace(a_model(), levels=None)
    on, off = (segment(body(FIRST_CM, PLANES), model, options=options) for options in (TORCH, OFF))
    np.testing.assert_array_equal(on.labels, off.labels)
    assert on.report.body_part is None


def test_without_the_check_the_report_has_none() -> None:
    result = segment(body(FIRST_CM, PLANES), a_model(), options=OFF)
    assert result.report.body_part is None
