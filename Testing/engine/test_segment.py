from __future__ import annotations

import dataclasses
import threading
import time
from itertools import permutations, product

import numpy as np
import pytest
import torch
from analytic_model import balls, center_ras_mm, random_model, ras_affine, threshold_model

from wbcss import inference
from wbcss import segment as segment_module
from wbcss.catalogue import catalogue
from wbcss.errors import Cancelled, DeviceError, GeometryError, InputError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel
from wbcss.nn.encoder import Encoder
from wbcss.segment import SegmentOptions, segment
from wbcss.specs import EncoderSpec, MergeRules
from wbcss.volume import Volume

LIVER, SPLEEN = OrganName("liver"), OrganName("spleen")
TORCH = SegmentOptions(backend="torch")


def label(name: str) -> int:
    return catalogue()[OrganName(name)].label


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """Liver from 50 HU, spleen from 400 HU, by threshold."""
    return threshold_model({"wholebody": {"liver": 50.0, "spleen": 400.0}})


def thresholded(voxels: np.ndarray) -> np.ndarray:
    return np.where(voxels > 400, label("spleen"), np.where(voxels > 50, label("liver"), 0))


def a_scan(rng: np.random.Generator, shape: tuple[int, int, int] = (24, 20, 28)) -> Volume:
    """Noise around the thresholds, on the model's spacing."""
    voxels = rng.integers(-300, 900, shape).astype(np.int16)
    voxels[(voxels == 50) | (voxels == 400)] += 3
    return Volume(voxels, ras_affine((3.0, 3.0, 3.0)))


def test_on_the_model_grid_the_answer_is_the_threshold_itself(model: LoadedModel, rng: np.random.Generator) -> None:
    volume = a_scan(rng)
    result = segment(volume, model, options=TORCH)
    np.testing.assert_array_equal(result.labels, thresholded(volume.voxels))
    assert result.labels.dtype == np.uint16
    assert result.confidence.dtype == np.float16
    assert result.affine is volume.affine
    assert [organ.name for organ in result.organs] == [LIVER, SPLEEN]
    assert result.report.num_tiles > 1


def test_a_task_on_request_changes_no_voxel_of_a_default_run(rng: np.random.Generator) -> None:
    volume = a_scan(rng)
    before, usual = {"wholebody": {"liver": 50.0, "spleen": 400.0}}, {"chest": {"aorta": 250.0, "liver": 300.0}}
    asked = TaskId("lesions")
    expected = segment(volume, threshold_model({**before, **usual}), options=TORCH)
    loaded = threshold_model({**before, asked: {"liver": -100.0, "brain": 100.0}, **usual})
    cards = {
        task: dataclasses.replace(card, on_request=True) if task == asked else card
        for task, card in loaded.cards.items()
    }
    model = dataclasses.replace(loaded, cards=cards)
    found = segment(volume, model, options=TORCH)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    assert (found.tasks, found.organs) == (expected.tasks, expected.organs)
    assert asked in segment(volume, model, organs=[OrganName("brain")], options=TORCH).tasks
    # Had it run, it would have shown.
    named = segment(volume, model, tasks=list(model.cards), options=TORCH)
    assert (named.labels != expected.labels).any()


def test_tiled_equals_whole_for_a_pointwise_model(rng: np.random.Generator) -> None:
    volume = a_scan(rng)
    organs = {"wholebody": {"liver": 50.0, "spleen": 400.0}}
    small = segment(volume, threshold_model(organs, tile=(8, 8, 8)), options=TORCH)
    whole = segment(volume, threshold_model(organs, tile=(32, 32, 32)), options=TORCH)
    assert whole.report.num_tiles == whole.report.num_encoder_calls == 1
    assert small.report.num_tiles > 20
    np.testing.assert_array_equal(small.labels, whole.labels)
    np.testing.assert_allclose(small.confidence, whole.confidence, atol=2e-3)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_all_48_permutations_and_flips_give_the_same_answer_on_their_own_grid(
    order: tuple[int, int, int], model: LoadedModel, rng: np.random.Generator
) -> None:
    volume = a_scan(rng, (18, 12, 14))
    expected = thresholded(volume.voxels)
    for signs in product((1, -1), repeat=3):
        steps = tuple(slice(None, None, sign) for sign in signs)
        affine = np.eye(4)
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            affine[:3, axis] = sign * volume.affine[:3, source]
        turned = Volume(volume.voxels.transpose(order)[steps], affine)
        result = segment(turned, model, options=TORCH)
        np.testing.assert_array_equal(result.labels, expected.transpose(order)[steps])


def oblique(spacing_mm: tuple[float, float, float], degrees: tuple[float, float, float]) -> np.ndarray:
    a, b, c = np.radians(degrees)
    around_s = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    around_a = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    around_r = np.array([[1, 0, 0], [0, np.cos(c), -np.sin(c)], [0, np.sin(c), np.cos(c)]])
    affine = np.eye(4)
    affine[:3, :3] = around_s @ around_a @ around_r @ np.diag(spacing_mm)
    affine[:3, 3] = (-70.0, 30.0, 500.0)
    return affine


GRIDS = {
    "finer": ((48, 44, 40), ras_affine((1.7, 1.7, 2.0), (10.0, -20.0, 5.0))),
    "thick slices": ((48, 44, 14), ras_affine((1.7, 1.7, 6.0))),
    "coarser": ((20, 20, 20), ras_affine((4.5, 4.5, 4.5))),
    "one axis much finer": ((30, 20, 90), ras_affine((3.0, 4.0, 0.9))),
    "oblique": ((40, 40, 40), oblique((2.0, 2.2, 2.4), (20.0, -15.0, 10.0))),
    "oblique and flipped": ((40, 40, 30), oblique((-2.0, 2.0, -3.0), (-25.0, 5.0, 30.0))),
    "lying on its side": ((30, 40, 40), oblique((3.0, 2.0, 2.0), (0.0, 88.0, 4.0))),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_the_center_of_an_organ_moves_less_than_half_a_voxel(grid: str, model: LoadedModel) -> None:
    shape, affine = GRIDS[grid]
    middle = (affine @ [*(np.array(shape) / 2), 1])[:3]
    liver, spleen = middle + np.array([10.0, 0.0, -6.0]), middle + np.array([-14.0, 6.0, 10.0])
    volume = balls(shape, affine, [(tuple(liver), 14.0, 250.0), (tuple(spleen), 11.0, 900.0)])
    result = segment(volume, model, options=TORCH)
    assert result.labels.shape == shape
    half = min(volume.spacing_mm) / 2
    # The soft edge of the spleen passes through the liver's HU, so the liver is looked at without it.
    far = (
        np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3] - spleen, axis=-1) > 18
    )
    for name, center in ((LIVER, liver), (SPLEEN, spleen)):
        mask = result.labels == label(name)
        mask &= far if name == LIVER else True
        distance = np.linalg.norm(center_ras_mm(mask, affine) - center)
        assert distance < half, f"{name} moved {distance:.2f} mm"


TINY = {
    "one voxel": ((1, 1, 1), (3.0, 3.0, 3.0)),
    "one slice": ((30, 26, 1), (1.5, 1.5, 5.0)),
    "one slice thinner than the model's": ((30, 26, 1), (1.5, 1.5, 1.0)),
    "one sagittal slice": ((1, 26, 30), (4.0, 1.5, 1.5)),
    "two voxels": ((2, 1, 1), (10.0, 0.5, 0.5)),
    "very anisotropic": ((40, 40, 3), (0.5, 0.5, 20.0)),
    "huge spacing": ((4, 3, 5), (30.0, 25.0, 20.0)),
    "tiny spacing": ((20, 20, 20), (0.01, 0.01, 0.01)),
}


@pytest.mark.parametrize("grid", TINY)
@pytest.mark.parametrize(("hu", "organ"), [(-100.0, None), (200.0, LIVER), (800.0, SPLEEN)])
def test_constant_volumes_of_every_size_get_one_label(
    grid: str, hu: float, organ: OrganName | None, model: LoadedModel
) -> None:
    shape, spacing = TINY[grid]
    result = segment(Volume(np.full(shape, hu, np.float32), ras_affine(spacing)), model, options=TORCH)
    assert result.labels.shape == shape
    assert np.unique(result.labels).tolist() == [0 if organ is None else label(organ)]
    assert (result.confidence > 0.9).all()


def test_pure_air_is_background_without_a_call_of_the_network(model: LoadedModel) -> None:
    result = segment(Volume(np.full((20, 20, 20), -1000, np.int16), ras_affine((3.0, 3.0, 3.0))), model)
    assert not result.labels.any()
    assert (result.confidence == 1).all()
    assert result.report.num_encoder_calls == 0
    assert result.report.warnings == ("the scan holds nothing but air; no organ was looked for",)


def test_air_around_the_body_costs_no_tile(model: LoadedModel) -> None:
    voxels = np.full((80, 80, 40), -1000, np.int16)
    voxels[30:46, 30:46] = 200
    result = segment(Volume(voxels, ras_affine((3.0, 3.0, 3.0))), model, options=TORCH)
    assert (result.labels[30:46, 30:46] == label("liver")).all()
    assert result.labels.astype(bool).sum() == 16 * 16 * 40
    assert result.report.num_tiles <= 3 * 3 * 4


@pytest.fixture(scope="module")
def two_tasks() -> LoadedModel:
    return threshold_model({"wholebody": {"liver": 50.0, "spleen": 400.0}, "chest": {"aorta": 200.0, "liver": 300.0}})


def encoder_runs(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    runs: list[int] = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda self, x: (runs.append(1), forward(self, x))[1])
    return runs


def test_the_number_of_encoder_calls_does_not_depend_on_the_number_of_tasks(
    two_tasks: LoadedModel, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = encoder_runs(two_tasks, monkeypatch)
    one = segment(a_scan(rng), two_tasks, tasks=[TaskId("chest")], options=TORCH)
    first = len(runs)
    both = segment(a_scan(rng), two_tasks, options=TORCH)
    assert len(runs) - first == first == one.report.num_encoder_calls == both.report.num_encoder_calls
    assert both.tasks == (TaskId("wholebody"), TaskId("chest"))


def test_only_the_decoders_that_are_needed_run_and_only_the_organs_asked_for_are_written(
    two_tasks: LoadedModel, rng: np.random.Generator
) -> None:
    ran: list[str] = []
    hooks = [
        two_tasks.network.decoder(task).stages[0].register_forward_hook(lambda *_, task=task: ran.append(task))
        for task in two_tasks.cards
    ]
    volume = a_scan(rng)
    result = segment(volume, two_tasks, organs=[SPLEEN], options=TORCH)
    for hook in hooks:
        hook.remove()
    assert set(ran) == {"wholebody"}
    assert result.tasks == (TaskId("wholebody"),)
    assert [organ.name for organ in result.organs] == [SPLEEN]
    np.testing.assert_array_equal(result.labels, np.where(volume.voxels > 400, label("spleen"), 0))


def test_two_tasks_are_merged_by_organ(two_tasks: LoadedModel, rng: np.random.Generator) -> None:
    volume = a_scan(rng)
    options = SegmentOptions(backend="torch", merge=MergeRules(strategy="registry_order"))
    labels = segment(volume, two_tasks, options=options).labels
    hu = volume.voxels
    # The chest task's liver loses as a whole; its aorta (200 to 300 HU) competes with the other's liver by confidence.
    assert (labels[hu > 400] == label("spleen")).all()
    assert (labels[hu < 50] == 0).all()
    assert set(np.unique(labels[(hu > 200) & (hu < 300)]).tolist()) <= {label("liver"), label("aorta")}
    assert (labels[(hu > 50) & (hu < 200)] == label("liver")).all()


def test_temperature_changes_confidence_and_no_label(rng: np.random.Generator) -> None:
    volume = a_scan(rng)
    organs = {"wholebody": {"liver": 50.0, "spleen": 400.0}}
    sharp = segment(volume, threshold_model(organs, temperature=0.5), options=TORCH)
    soft = segment(volume, threshold_model(organs, temperature=4.0), options=TORCH)
    np.testing.assert_array_equal(sharp.labels, soft.labels)
    assert sharp.confidence.mean() > soft.confidence.mean()


def test_progress_never_goes_back_and_ends_at_one(model: LoadedModel, rng: np.random.Generator) -> None:
    told: list[tuple[float, str]] = []
    segment(a_scan(rng), model, options=TORCH, progress=lambda fraction, stage: told.append((fraction, stage)))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert max(np.diff(fractions)) < 0.25
    assert {stage for _, stage in told} == {"read", "resample", "network", "native", "merge"}


def test_every_stage_is_timed(model: LoadedModel, rng: np.random.Generator) -> None:
    seconds = segment(a_scan(rng), model, options=TORCH).report.stage_seconds
    assert set(seconds) == {"read", "prepare", "resample", "network", "sweep", "native", "merge"}
    assert all(value >= 0 for value in seconds.values())


@pytest.mark.parametrize("asked", [1, 5, 40])
def test_a_cancel_is_noticed_wherever_it_comes(asked: int, model: LoadedModel, rng: np.random.Generator) -> None:
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls >= asked

    with pytest.raises(Cancelled):
        segment(a_scan(rng), model, options=TORCH, cancelled=cancelled)
    assert calls == asked, "nothing goes on after a cancel"


def test_a_cancel_from_another_thread_answers_within_a_second() -> None:
    encoder = EncoderSpec(
        stage_channels=(16, 16),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((3, 3, 3), (3, 3, 3)),
        convs_per_stage=(2, 2),
        spacing_mm=(3.0, 3.0, 3.0),
        tile=(48, 48, 48),
    )
    model = random_model(encoder, {"wholebody": (["liver"], 8)})
    stop = threading.Event()
    seen: list[float] = []

    def progress(fraction: float, stage: str) -> None:
        if stage == "network" and not seen:
            seen.append(time.process_time())
            stop.set()

    with pytest.raises(Cancelled):
        segment(Volume(np.zeros((90, 90, 90), np.int16), ras_affine((3.0, 3.0, 3.0))), model, options=TORCH,
                progress=progress, cancelled=stop.is_set)  # fmt: skip
    assert time.process_time() - seen[0] < 1.0


def test_the_ladder_is_taken_and_reported_when_memory_runs_out(
    model: LoadedModel, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is played by the CPU: the steps are real, the first ones raise what a full GPU raises."""
    volume = a_scan(rng)
    expected = segment(volume, model, options=TORCH)
    steps = segment_module.ladder(torch.device("cpu"), (16, 16, 16), (2, 2, 2))
    real = [
        segment_module.Step(torch.device("cpu"), batch, tile) for batch, tile in ((4, (16, 16, 16)), (1, (8, 8, 8)))
    ]
    monkeypatch.setattr(segment_module, "ladder", lambda *_: (*real, *steps))
    choose = segment_module.choose_backend

    class Full:
        """Runs out of memory above a size, after some tiles."""

        def __init__(self, inner: object) -> None:
            self._inner, self.name, self.num_calls = inner, "full", 0

        def features(self, tiles: torch.Tensor, cancelled: object) -> object:
            self.num_calls += 1
            if len(tiles) > 1:
                raise torch.OutOfMemoryError("full")
            return self._inner.features(tiles, cancelled)  # type: ignore[attr-defined]

    monkeypatch.setattr(segment_module, "choose_backend", lambda *arguments: Full(choose(*arguments)))
    told: list[tuple[float, str]] = []
    result = segment(volume, model, options=TORCH, progress=lambda f, s: told.append((f, s)))
    np.testing.assert_array_equal(result.labels, expected.labels)
    sentence = "out of memory; continuing with cpu, 1 tile of 8x8x8 at once"
    assert result.report.ladder == (sentence,)
    assert sentence in result.report.warnings
    assert sentence in [stage for _, stage in told]
    assert [f for f, _ in told] == sorted(f for f, _ in told)


def test_threads_are_as_before_afterwards(model: LoadedModel, rng: np.random.Generator) -> None:
    seen: list[int] = []
    options = SegmentOptions(backend="torch", threads=2)
    segment(a_scan(rng), model, options=options, progress=lambda *_: seen.append(torch.get_num_threads()))
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


def test_what_cannot_be_segmented_is_refused_before_any_work(
    model: LoadedModel, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = a_scan(rng)
    runs = encoder_runs(model, monkeypatch)
    with pytest.raises(InputError, match="got a volume of modality MR"):
        segment(Volume(volume.voxels, volume.affine, modality="MR"), model)
    with pytest.raises(InputError, match=r"unknown organ 'livr'; did you mean liver\?"):
        segment(volume, model, organs=[OrganName("livr")])
    with pytest.raises(InputError, match="device must be auto, cpu, cuda or cuda:N, got 'tpu'"):
        segment(volume, model, options=SegmentOptions(device="tpu"))
    with pytest.raises(GeometryError, match="at most 4000 mm along every axis"):
        segment(Volume(volume.voxels, ras_affine((3000.0, 3.0, 3.0))), model)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device 'cuda:7' is not on this machine; it has cpu"):
        segment(volume, model, options=SegmentOptions(device="cuda:7"))
    assert not runs


def test_wrong_options_are_refused_with_what_came() -> None:
    with pytest.raises(InputError, match="backend must be auto, torch or openvino, got 'jax'"):
        SegmentOptions(backend="jax")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"overlap must be in \[0, 1\), got 1\.0"):
        SegmentOptions(overlap=1.0)
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        SegmentOptions(threads=0)


def test_thick_slices_get_a_warning(model: LoadedModel) -> None:
    voxels = np.full((8, 8, 4), 200, np.int16)
    voxels[0] = -1000
    volume = Volume(voxels, ras_affine((3.0, 3.0, 10.0)))
    assert segment(volume, model, options=TORCH).report.warnings == (
        "voxels are 10.0 mm apart along one axis; small organs may be missed",
    )


def test_the_share_of_the_network_in_progress_leaves_room_for_the_rest() -> None:
    assert 0 < inference.NETWORK_SHARE < 1
