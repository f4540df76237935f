from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from level_model import SCALE_CM, body, level_card, reading_head
from tiny_enrollment import registry_with_earlier_task, request
from tiny_training import write_plan

from wbcss.bodypart import DOUBTS, MAX_DOUBT_CM
from wbcss.errors import RunError, SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.levelcard import ranges_of
from wbcss.levels import learned_range
from wbcss.levelstore import StagedLevelHead, publish_level_head
from wbcss.levelstore import level_card as card_of
from wbcss.loading import LoadedLevelHead, load_model, save_weights
from wbcss.nn.levelhead import EMPTY_SCALE_CM, LOG_SPAN, MIDDLE_SCALE_CM, LevelHead
from wbcss.proof import take_snapshot
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions, segment
from wbcss.snapshot import changed_files, changed_logits
from wbcss.specs import EncoderSpec
from wbcss_training.bodylevels import ANCHORS_CM, REGIONS_CM
from wbcss_training.bodypart import (
    LevelConfig,
    _parted,
    held_out_errors,
    held_out_margin,
    level_loss,
    open_level_sources,
    train_body_part,
    train_level_head,
)
from wbcss_training.cli.main import main
from wbcss_training.enrolling import enroll
from wbcss_training.features import FeaturePool, write_features
from wbcss_training.levelranges import learn_ranges, with_ranges
from wbcss_training.levelsamples import CaseLevels, LevelSample
from wbcss_training.patches import FeaturePatch

CPU = torch.device("cpu")
LIVER, SPLEEN, AORTA = OrganName("liver"), OrganName("spleen"), OrganName("aorta")
QUICK = LevelConfig(patches=6, hidden=4, steps=3, batch_size=2)


def samples(count: int, *, seed: int = 0) -> list[LevelSample]:
    """Slabs whose first feature is their level in meters, among noise; the last slab is empty air."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        top = 20 + 120 * float(torch.rand((), generator=generator))
        levels = top + 4.8 * torch.arange(5.0).flip(0)
        deep = 0.1 * torch.randn(3, 4, 4, 5, generator=generator)
        deep[0, 1:3] += levels / 100
        deep[1, 1:3] += 1.0  # marks the body
        deep[..., 4] = 0
        levels[4] = torch.nan
        has_body = torch.tensor([True] * 4 + [False])
        made.append(LevelSample(deep.half(), levels, 48.0 * torch.arange(5.0), has_body))
    return made


def naive_loss(head: LevelHead, batch: list[LevelSample], order_weight: float) -> float:
    likelihood, empty, order = [], [], []
    with torch.inference_mode():
        for sample in batch:
            levels, scales = (values[0].double().tolist() for values in head(sample.deep[None]))
            for n, (level, scale) in enumerate(zip(levels, scales, strict=True)):
                truth = float(sample.levels_cm[n])
                if not sample.has_body[n]:
                    empty.append(np.log(scale / EMPTY_SCALE_CM) ** 2)
                elif not np.isnan(truth):
                    likelihood.append(abs(level - truth) * (1 / MIDDLE_SCALE_CM + 1 / scale) + np.log(scale))
                for m, other in enumerate(levels):
                    below = float(sample.heights_mm[n] - sample.heights_mm[m]) / 10
                    if sample.has_body[n] and sample.has_body[m] and below > 0:
                        wrong = max(0, 0.7 * below - (other - level)) + max(0, other - level - 1.4 * below)
                        order.append(wrong / max(below, 1.0))
    return float(np.mean(likelihood) + np.mean(empty) + order_weight * np.mean(order))


def test_the_loss_is_that_of_its_formula() -> None:
    torch.manual_seed(1)
    batch = samples(3)
    batch[1].levels_cm[2] = torch.nan  # a slab of the body whose level nobody knows
    head = LevelHead(3, 4)
    loss = level_loss(head, batch, order_weight=0.5, device=CPU)
    assert loss.item() == pytest.approx(naive_loss(head, batch, 0.5), rel=1e-4)


def test_a_head_may_not_buy_peace_by_being_unsure() -> None:
    """What moves the levels is the plain error, however large the scale of the answer is."""
    batch = samples(2)
    pulls = []
    for answer in (-3.0, 3.0):  # of the scale: sure, and as unsure as can be
        torch.manual_seed(3)
        head = LevelHead(3, 4)
        with torch.no_grad():
            head.answer.weight[1] = 0.0
            head.answer.bias[1] = answer
        level_loss(head, batch, order_weight=0.0, device=CPU).backward()  # type: ignore[no-untyped-call]
        assert head.answer.weight.grad is not None
        pulls.append(head.answer.weight.grad[0].clone())
    assert torch.allclose(pulls[0], pulls[1], rtol=1e-5)


def test_a_head_learns_levels_and_where_there_are_none() -> None:
    config = LevelConfig(patches=48, hidden=16, steps=250, batch_size=16, learning_rate=1e-2)
    head = train_level_head(samples(48), config, device=CPU)
    fresh = samples(12, seed=9)
    assert held_out_errors(head, fresh)["mean_absolute_error_cm"] < 4.0
    untrained = held_out_errors(LevelHead(3, 16), fresh)["mean_absolute_error_cm"]
    assert untrained > 15.0
    _, scales = head(torch.stack([sample.deep for sample in fresh]))
    assert scales[:, 4].min() > 2 * scales[:, :4].max()
    assert scales[:, 4].min() > 0.5 * EMPTY_SCALE_CM
    again = train_level_head(samples(48), config, device=CPU)
    for name, value in head.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_order_alone_teaches_the_direction_of_levels() -> None:
    unknown = [dataclasses.replace(sample, levels_cm=torch.full((5,), torch.nan)) for sample in samples(32)]
    config = LevelConfig(patches=32, hidden=16, steps=250, batch_size=16, learning_rate=1e-2)
    head = train_level_head(unknown, config, device=CPU)
    levels, _ = head(torch.stack([sample.deep for sample in samples(8, seed=5)]))
    steps = levels[:, :3] - levels[:, 1:4]
    assert 2.0 < float(steps.mean()) < 7.5


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    broken = samples(4)
    broken[0].deep[:] = torch.inf
    with pytest.raises(RunError, match="the loss of the level head must be finite, got nan at step 0"):
        train_level_head(broken, LevelConfig(patches=4, batch_size=4), device=CPU)


def test_errors_need_a_slab_of_known_level() -> None:
    unknown = [dataclasses.replace(sample, levels_cm=torch.full((5,), torch.nan)) for sample in samples(2)]
    with pytest.raises(SpecError, match="no held-out slab has a known level"):
        held_out_errors(LevelHead(3, 4), unknown)


def placed(off_cm: float, *, slabs: int = 6) -> LevelSample:
    """A tile that ``reading_head`` reads exactly, if its levels are those of the truth plus ``off_cm``."""
    seen = 40.0 + 4.8 * torch.arange(float(slabs)).flip(0)
    deep = (seen / 100 + 0.1).expand(1, 2, 2, slabs).half()
    return LevelSample(deep, seen - off_cm, 48.0 * torch.arange(float(slabs)), torch.ones(slabs, dtype=torch.bool))


def test_the_margin_is_what_curves_are_off_beyond_their_doubt() -> None:
    """A steady error of 7 cm: the head is sure to within its own scale, so the doubt is that over sqrt(6) slabs."""
    doubt_cm = SCALE_CM / np.sqrt(6)
    found = held_out_margin(reading_head(), [placed(7.0) for _ in range(4)], scale_factor=1.0)
    assert found["margin_95_cm"] == pytest.approx(7.0 - DOUBTS * doubt_cm, abs=0.15)
    assert (found["tiles"], found["tiles_that_decide"]) == (4.0, 1.0)
    exact = held_out_margin(reading_head(), [placed(0.0)], scale_factor=1.0)
    assert exact["margin_95_cm"] == 0.0


def test_tiles_that_may_not_decide_do_not_count() -> None:
    """With answers good to 10 cm six slabs leave a doubt above the 4 cm that are allowed, and seven one below."""
    scale_cm = 10.0
    assert scale_cm / np.sqrt(7) < MAX_DOUBT_CM < scale_cm / np.sqrt(6)
    factor = scale_cm / SCALE_CM
    found = held_out_margin(reading_head(), [placed(17.0, slabs=7), placed(99.0)], scale_factor=factor)
    assert (found["tiles"], found["tiles_that_decide"]) == (2.0, 0.5)
    assert found["margin_95_cm"] == pytest.approx(17.0 - DOUBTS * scale_cm / np.sqrt(7), abs=0.2)
    none = held_out_margin(reading_head(), [placed(99.0)], scale_factor=factor)
    assert (none["margin_95_cm"], none["tiles_that_decide"]) == (MAX_DOUBT_CM, 0.0)


def test_the_factor_makes_the_scale_that_of_the_errors() -> None:
    """Errors of 0 to 9.5 cm from a head that tells one scale: 95% are below 9, and log(20) scales hold them."""
    found = held_out_errors(reading_head(), [placed(0.5 * number) for number in range(20)])
    assert found["error_95_cm"] == pytest.approx(9.0, abs=0.2)
    assert found["scale_factor"] * SCALE_CM * np.log(20) == pytest.approx(found["error_95_cm"], rel=0.02)


def test_every_source_is_held_out_in_part() -> None:
    samples_of = [placed(float(number)) for number in range(48)]
    training, held_out = _parted(samples_of, 2)
    sources = [samples_of.index(sample) % 2 for sample in held_out]
    assert (len(training), len(held_out)) == (42, 6)
    assert sorted(sources) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps of a level head must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and order_weight at least 0, got 0.0 and 1.0"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LevelConfig(**changes)  # type: ignore[arg-type]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return registry_with_earlier_task(tmp_path / "registry")


def test_a_head_is_published_and_nothing_else_changes(registry: Registry, atlas_dir: Path, tmp_path: Path) -> None:
    before = take_snapshot(registry)
    card = train_body_part(atlas_dir, registry, run_dir=tmp_path / "run", config=QUICK, device="cpu")
    assert card_of(registry) == card
    assert registry.verify() == []
    now = take_snapshot(registry)
    assert changed_files(before.files, now.files, since="before") == []
    assert before.logits is not None
    assert now.logits is not None
    assert changed_logits(before.logits, now.logits, since="before") == []
    assert card.regions_cm == dict(REGIONS_CM)
    assert card.anchors_cm == dict(ANCHORS_CM)
    assert LIVER in card.ranges_cm
    assert card.scale_factor == card.validation["scale_factor"]
    assert card.margin_cm == card.validation["margin_95_cm"]
    assert card.training["sources"] == ["atlas"]
    assert card.license == registry.encoder_card().license
    text = (registry.root / "encoder" / "body_part" / "card.json").read_text()
    assert str(tmp_path) not in text
    # The engine runs with it, whatever so small a head says.
    options = SegmentOptions(device="cpu", backend="torch", threads=1)
    result = segment(body(60.0, 24), load_model(registry), options=options)
    assert result.report.body_part is not None


def test_a_run_goes_on_to_the_same_head_and_refuses_another(
    registry: Registry, atlas_dir: Path, tmp_path: Path
) -> None:
    run = {"run_dir": tmp_path / "run", "config": QUICK, "device": "cpu"}
    first = train_body_part(atlas_dir, registry, publish=False, **run)  # type: ignore[arg-type]
    assert card_of(registry) is None
    (tmp_path / "run" / "levels" / "000003.safetensors").unlink()
    again = train_body_part(atlas_dir, registry, **run)  # type: ignore[arg-type]
    assert again.weights_sha256 == first.weights_sha256
    run["config"] = dataclasses.replace(QUICK, hidden=5)
    with pytest.raises(SpecError, match=r"was begun with config \{.*'hidden': 4.*got \{.*'hidden': 5"):
        train_body_part(atlas_dir, registry, **run)  # type: ignore[arg-type]


def test_a_plan_and_a_list_of_cases_are_sources_too(atlas_dir: Path, tmp_path: Path) -> None:
    spec = registry_with_earlier_task(tmp_path / "registry").encoder_card().spec
    plan = write_plan(tmp_path / "plan.json", {"kind": "atlas", "folder": str(atlas_dir)})
    opened = open_level_sources(plan, spec, cache_dir=tmp_path / "cache", seed=1)
    assert opened.description == ("atlas",)
    from tiny_training import write_case, write_list

    cases = write_list(tmp_path, [write_case(tmp_path, "a")])
    opened = open_level_sources(cases, spec, cache_dir=tmp_path / "cache", seed=1)
    assert opened.description == ("1 cases",)
    assert isinstance(opened.sources[0], CaseLevels)
    assert opened.ranges_cm == {}


def test_the_command_trains_publishes_and_refuses_a_second_head(
    registry: Registry, atlas_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bodypart", str(atlas_dir), "--registry", str(registry.root), "--run", str(tmp_path / "run")]
    words += ["--patches", "6", "--steps", "3", "--hidden", "4", "--device", "cpu", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    card = card_of(registry)
    assert card is not None
    assert told["scale_factor"] == card.scale_factor
    assert main(words) == 2
    assert "already has a level head" in capsys.readouterr().err
    assert main([*words, "--no-publish"]) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err


@pytest.mark.slow
def test_an_encoder_may_be_published_with_its_head(atlas_dir: Path, tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "plan.json", {"kind": "atlas", "folder": str(atlas_dir)})
    words = ["encoder", str(plan), "--run", str(tmp_path / "run"), "--registry", str(tmp_path / "made")]
    words += ["--steps", "2", "--workers", "0", "--validation-patches", "0", "--level-patches", "4", "--device", "cpu"]
    assert main(words) == 0
    made = Registry(tmp_path / "made")
    card = card_of(made)
    assert card is not None
    assert card.encoder_sha256 == made.encoder_card().weights_sha256
    assert made.verify() == []


def a_pool(folder: Path, tops_cm: list[float], *, num_skips: int = 2) -> FeaturePool:
    """Patches of 8 x 8 x 32 voxels of 3 mm; channel 1 is annotated from 3 to 6 cm below the top of each."""
    folder.mkdir(exist_ok=True)
    for number, top in enumerate(tops_cm):
        levels = top + 0.3 * torch.arange(32.0).flip(0)
        slabs = levels.view(16, 2).mean(dim=1)
        deep = (slabs / 100 + 0.1).expand(1, 4, 4, 16).half()
        labels = torch.zeros(8, 8, 32, dtype=torch.uint8)
        labels[2:4, 2:4, (levels >= top + 3) & (levels <= top + 6)] = 1
        labels[0, 0, 5] = 2  # seen on a plane or two only
        skips = (torch.zeros(1, 8, 8, 32).half(), deep)[:num_skips]
        write_features(folder / f"{number:06d}.safetensors", FeaturePatch(skips, labels, torch.ones(3) > 0))
    return FeaturePool(task=TaskId("belly"), folder=folder, count=len(tops_cm))


SPEC = EncoderSpec(
    stage_channels=(1, 1),
    strides=((1, 1, 1), (2, 2, 2)),
    kernels=((1, 1, 1), (1, 1, 1)),
    convs_per_stage=(1, 1),
    spacing_mm=(3.0, 3.0, 3.0),
    tile=(8, 8, 32),
)


def test_ranges_are_those_of_the_planes_that_show_an_organ(tmp_path: Path) -> None:
    levels = LoadedLevelHead(reading_head(), level_card(weights_sha256="a" * 64))
    tops = [60.0, 61.0, 64.0]
    found = learn_ranges(levels, a_pool(tmp_path, tops), (LIVER, SPLEEN, AORTA), SPEC)
    assert found["head_sha256"] == "a" * 64
    assert set(found["ranges_cm"]) == {LIVER}  # the others were seen on too few planes, or never
    planes = [level for top in tops for level in top + 0.3 * np.arange(32) if top + 3 <= level <= top + 6]
    expected = learned_range(planes)
    assert found["ranges_cm"][LIVER] == pytest.approx(expected, abs=0.3)


def test_a_pool_without_the_deepest_features_teaches_no_range(tmp_path: Path) -> None:
    levels = LoadedLevelHead(reading_head(), level_card(weights_sha256="a" * 64))
    assert learn_ranges(levels, a_pool(tmp_path, [60.0], num_skips=1), (LIVER,), SPEC) == {}


def middle_head(channels: int) -> LevelHead:
    """Says that everything lies near the middle of the body, and is sure of it to ``SCALE_CM``."""
    head = LevelHead(channels, 2)
    with torch.no_grad():
        head.answer.weight.mul_(0.1)
        head.answer.bias[0] = 0.0
        head.answer.bias[1] = LOG_SPAN * float(np.arctanh(np.log(SCALE_CM / MIDDLE_SCALE_CM) / LOG_SPAN))
    return head


def test_a_card_gets_ranges_only_where_there_is_a_head_and_a_pool(registry: Registry, tmp_path: Path) -> None:
    card = registry.card(TaskId("spine"))
    channels, size = registry.encoder_card().spec.stage_channels, 16
    skips = tuple(torch.zeros(width, *(3 * [size >> level])).half() for level, width in enumerate(channels))
    labels = torch.zeros(size, size, size, dtype=torch.uint8)
    labels[2:5, 2:5, 1:15] = 1
    write_features(tmp_path / "000000.safetensors", FeaturePatch(skips, labels, torch.ones(2) > 0))
    pool = FeaturePool(task=card.task, folder=tmp_path, count=1)
    assert with_ranges(card, registry, pool) is card
    staged = level_card(encoder_sha256=card.encoder_sha256, hidden=2)
    torch.manual_seed(0)
    head = middle_head(channels[-1])
    save_weights(head.state_dict(), tmp_path / "head.safetensors")
    made = publish_level_head(registry, StagedLevelHead(card=staged, weights=tmp_path / "head.safetensors"))
    assert with_ranges(card, registry, None) is card
    placed = with_ranges(card, registry, pool)
    assert placed.body_part["head_sha256"] == made.weights_sha256
    first, last = ranges_of(placed.body_part, made)[card.organs[0].name]
    assert first < 85 < last


def test_an_enrolment_learns_where_its_organs_are(registry: Registry, tmp_path: Path) -> None:
    encoder = registry.encoder_card()
    torch.manual_seed(0)
    head = middle_head(encoder.spec.stage_channels[-1])
    save_weights(head.state_dict(), tmp_path / "head.safetensors")
    staged = level_card(encoder_sha256=encoder.weights_sha256, hidden=2)
    made = publish_level_head(registry, StagedLevelHead(card=staged, weights=tmp_path / "head.safetensors"))
    report = enroll(request(tmp_path / "cases"), registry, run_dir=tmp_path / "run", device="cpu")
    assert report is not None
    card = registry.card(report.card.task)
    assert card.body_part["head_sha256"] == made.weights_sha256
    assert set(card.body_part["ranges_cm"]) <= {organ.name for organ in card.organs}
    assert card.body_part["ranges_cm"]
    assert registry.verify() == []
