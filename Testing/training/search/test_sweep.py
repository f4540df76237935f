"""The width sweep and the comparison: what is picked, equal cost, candidates trained once."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_search
import tiny_training
import torch

from wbcss.errors import SpecError
from wbcss.nn.decoder import Decoder
from wbcss_training import rounds
from wbcss_training.casepools import CasePools
from wbcss_training.enrollment import Schedule
from wbcss_training.features import FeaturePool, FeatureSpec
from wbcss_training.patches import FeaturePatch
from wbcss_training.search.accuracy import mean_dice, pool_dice
from wbcss_training.search.candidate import Candidate, Classroom
from wbcss_training.search.compare import Pair, candidate_table, comparison_json, comparison_markdown
from wbcss_training.search.costmodel import DecoderCost
from wbcss_training.search.space import scaled_decoder, without_finest
from wbcss_training.search.sweep import pick, sweep_widths, widest_within


def candidate(width: int, *, seconds: float, dice: float, **changes: Any) -> Candidate:
    spec = dataclasses.replace(tiny_search.FULL, stage_channels=(width, width))
    made = Candidate(
        name=f"width {width}",
        seed=0,
        spec=spec,
        cost=DecoderCost(seconds=seconds, parameters=1_500_000, macs=2_000_000_000),
        measured_s=None,
        dice=dice,
    )
    return dataclasses.replace(made, **changes)


SWEPT = (
    candidate(8, seconds=0.8, dice=0.900),
    candidate(4, seconds=0.4, dice=0.902),
    candidate(2, seconds=0.2, dice=0.898),
    candidate(1, seconds=0.1, dice=0.850),
)


@pytest.mark.parametrize(
    ("tolerance", "limit_s", "width"),
    [
        (0.005, 1.0, 2),  # the cheapest within half a point of the best
        (0.001, 1.0, 4),
        (0.1, 1.0, 1),
        (0.001, 0.3, 2),  # the budget holds, the accuracy does not: the best that it allows
        (0.005, 0.15, 1),
    ],
)
def test_the_cheapest_width_within_tolerance_and_budget_is_picked(tolerance: float, limit_s: float, width: int) -> None:
    assert pick(SWEPT, tolerance=tolerance, limit_s=limit_s).spec.stage_channels == (width, width)


def test_a_budget_below_every_width_is_told() -> None:
    with pytest.raises(SpecError, match=r"must allow the narrowest decoder, 0\.1 s, got 0\.05 s; raise it"):
        pick(SWEPT, tolerance=0.005, limit_s=0.05)


def test_one_width_of_equal_cost_uses_the_budget_and_no_more() -> None:
    model, full = tiny_search.model(), dataclasses.replace(tiny_search.FULL, stage_channels=(64, 96))
    wide = scaled_decoder(full, 0.4)
    limit_s = model.cost(wide).seconds
    assert widest_within(model, full, limit_s=limit_s) == wide
    assert model.cost(widest_within(model, full, limit_s=0.999 * limit_s)).seconds < limit_s
    assert model.cost(widest_within(model, full, limit_s=0.999 * limit_s)).seconds > 0.9 * limit_s
    assert widest_within(model, full, limit_s=1e-5).stage_channels == (1, 1)


class Told:
    """A pool of one patch whose features are its organs, one channel each, as a decoder would like to see them."""

    task = tiny_training.TASK
    count = 1

    def __init__(self, labels: torch.Tensor, annotated: list[bool]) -> None:
        skips = (labels[None].half(), torch.zeros(6, 8, 8, 8), torch.zeros(8, 8, 4, 4))
        self._patch = FeaturePatch(skips, labels, torch.tensor(annotated))

    def patch(self, index: int) -> FeaturePatch:
        return self._patch


class Repeats(Decoder):
    """Answers channel n where its finest input says n, but never 3; where it says 2 it answers 1."""

    def features(self, skips: list[torch.Tensor]) -> torch.Tensor:
        said = skips[0][:, 0].long()
        answer = torch.where(said == 2, 1, torch.where(said == 3, 0, said))
        return torch.nn.functional.one_hot(answer, 4).permute(0, 4, 1, 2, 3).float()


def test_dice_is_taken_over_all_patches_where_the_organ_is_annotated(rng: np.random.Generator) -> None:
    labels = torch.from_numpy(rng.integers(0, 4, (16, 16, 16))).to(torch.uint8)
    decoder = Repeats(tiny_search.FULL, tiny_search.ENCODER)
    with torch.no_grad():
        decoder.head.weight.copy_(torch.eye(4)[..., None, None, None])
        decoder.head.bias.zero_()  # type: ignore[union-attr]
    sizes = [int((labels == n).sum()) for n in range(4)]
    expected = 2 * sizes[1] / (2 * sizes[1] + sizes[2])
    everywhere: Any = Told(labels, [True] * 4)
    assert pool_dice(decoder, everywhere) == pytest.approx([expected, 0.0, 0.0])
    assert mean_dice(decoder, everywhere) == pytest.approx(expected / 3)
    some: Any = Told(labels, [True, True, False, True])
    assert pool_dice(decoder, some)[1] is None
    nothing: Any = Told(torch.zeros_like(labels), [True] * 4)
    with pytest.raises(SpecError, match="the 1 held-out patches must show an organ, got none"):
        pool_dice(decoder, nothing)


@pytest.fixture
def classroom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Classroom:
    monkeypatch.setattr(rounds, "draw_curves", lambda run_dir: run_dir)
    schedule = Schedule(
        config=tiny_training.config(steps=2),
        decoder=tiny_search.FULL,
        features=FeatureSpec(patch=tiny_search.ENCODER.tile, num_skips=3, autocast=False),
        num_training=2,
        num_validation=2,
        bytes_per_patch=1,
        coarse_steps=2,
        round_steps=2,
        patience=1,
    )
    pools = CasePools(
        training=tiny_search.pool(tmp_path / "pool", count=2),
        held_out=tiny_search.pool(tmp_path / "held_out", count=2, seed=6),
    )
    return Classroom(tiny_search.frozen_encoder(), pools, schedule, tiny_search.model(), torch.device("cpu"))


def test_every_width_is_trained_once(classroom: Classroom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sweep_widths(classroom, tiny_search.SPACE, tmp_path / "run", seed=3)
    assert [c.spec.stage_channels for c in found] == 2 * [(4, 6), (2, 3), (1, 2), (1, 1)]
    assert [c.spec.convs_per_stage for c in found] == [(2, 1)] * 4 + [(0, 1)] * 4
    assert [c.name for c in found[3:5]] == ["width 1", "width 4 bare"]
    assert [c.cost for c in found] == [classroom.model.cost(c.spec) for c in found]
    assert all(0 <= c.dice <= 1 and c.seed == 3 and c.measured_s is None for c in found)
    monkeypatch.setattr("wbcss_training.search.candidate.train_in_rounds", None)  # nothing is trained again
    assert sweep_widths(classroom, tiny_search.SPACE, tmp_path / "run", seed=3) == found


def test_a_candidate_of_another_seed_or_spec_is_not_mistaken(classroom: Classroom, tmp_path: Path) -> None:
    spec = scaled_decoder(tiny_search.FULL, 0.5)
    classroom.candidate(spec, tmp_path / "c", name="c", seed=0)
    with pytest.raises(
        SpecError, match=r"c holds a candidate of \(2, 3\) channels and seed 0, expected \(2, 3\) and 1"
    ):
        classroom.candidate(spec, tmp_path / "c", name="c", seed=1)
    (tmp_path / "c" / "candidate.json").write_text("{}")
    with pytest.raises(SpecError, match=r"candidate\.json must hold a trained candidate, got 'spec'"):
        classroom.candidate(spec, tmp_path / "c", name="c", seed=0)


def test_candidates_need_held_out_cases(classroom: Classroom, tmp_path: Path) -> None:
    pools = dataclasses.replace(classroom.pools, held_out=None)
    with pytest.raises(SpecError, match="decoders are compared on held-out cases, got none"):
        dataclasses.replace(classroom, pools=pools).candidate(tiny_search.FULL, tmp_path, name="c", seed=0)


def test_a_candidate_is_timed_on_the_machine_of_its_table(classroom: Classroom, tmp_path: Path) -> None:
    from wbcss_training.search.costmodel import CostModel
    from wbcss_training.search.measuring import Machine

    table = dataclasses.replace(tiny_search.table(), machine=Machine.of(torch.device("cpu")))
    here = dataclasses.replace(classroom, model=CostModel(table, tiny_search.ENCODER))
    measured_s = here.candidate(tiny_search.FULL, tmp_path, name="c", seed=0).measured_s
    assert measured_s is not None
    assert measured_s > 0


PAIRS = [
    Pair(
        searched=candidate(2, seconds=0.2, dice=0.90 + 0.01 * seed, seed=seed, name="searched", measured_s=0.25),
        swept=candidate(3, seconds=0.2, dice=0.89, seed=seed, name="one width"),
        bare=candidate(5, seconds=0.2, dice=0.93 - 0.02 * seed, seed=seed, name="one width bare"),
    )
    for seed in range(3)
]


def test_the_comparison_has_mean_and_spread_over_seeds() -> None:
    facts = comparison_json(PAIRS, full_seconds=1.0, budget=0.2)
    assert facts["dice"]["searched"] == {"mean": pytest.approx(0.91), "sd": pytest.approx(0.01)}
    assert facts["dice"]["difference"] == {"mean": pytest.approx(0.02), "sd": pytest.approx(0.01)}
    assert facts["dice"]["difference to bare"] == {"mean": pytest.approx(0), "sd": pytest.approx(0.03)}
    assert len(json.loads(json.dumps(facts))["seeds"]) == 3
    assert comparison_json(PAIRS[:1], full_seconds=1.0, budget=0.2)["dice"]["searched"]["sd"] is None


def test_the_table_says_what_every_decoder_is_and_costs() -> None:
    text = comparison_markdown(PAIRS, full_seconds=1.0, budget=0.2)
    assert "at most 20% of the full decoder's time" in text
    assert (
        "| 1 | searched | 2-2 | 3x3x3 3x3x3 | 2-1 | 200.0 ms (20.0%) | 250.0 ms | 1.500 M | 2.00 G | 0.9100 |" in text
    )
    assert "difference: Dice 0.0200 (sd 0.0100)" in text
    split = dataclasses.replace(tiny_search.FULL, kernels=((3, 3, 1), (3, 3, 3)), then_kernels=((1, 1, 3), ()))
    row = candidate_table([candidate(4, seconds=0.1, dice=0.5, spec=split)], 1.0).splitlines()[-1]
    assert "| 4-6 | 1x3x3+3x1x1 3x3x3 | 2-1 | 100.0 ms (10.0%) | - |" in row
    bare = candidate(4, seconds=0.1, dice=0.5, spec=without_finest(tiny_search.FULL))
    assert "| 4-6 | none 3x3x3 | 0-1 | 100.0 ms" in candidate_table([bare], 1.0)
    heads, rule = candidate_table([], 1.0).splitlines()
    assert heads.count("|") == rule.count("|") == row.count("|")


def test_part_pools_are_pools(classroom: Classroom) -> None:
    assert isinstance(classroom.pools.training.part(0, 1), FeaturePool)
