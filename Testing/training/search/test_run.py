"""A search: who learns in which step, bitwise resume, a result within the budget, and its picture."""

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
from PIL import Image

from wbcss.errors import Cancelled, SpecError
from wbcss.specs import DecoderSpec
from wbcss_training.curves import read_metrics
from wbcss_training.features import FeaturePool
from wbcss_training.search import run
from wbcss_training.search.pathplot import plot_path
from wbcss_training.search.run import PATH, SearchJob, search_decoder
from wbcss_training.search.searcher import SearchConfig, SearchLearner, SplitPool

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> FeaturePool:
    return tiny_search.pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "draw_curves", lambda run_dir: run_dir)
    monkeypatch.setattr(run, "plot_path", lambda lines, space, path, budget: path)


def searched(
    pool: FeaturePool, run_dir: Path, job: SearchJob | None = None, *, stop_after: int | None = None
) -> DecoderSpec:
    asked = iter(range(1, 10_000))
    return search_decoder(
        job or tiny_search.job(),
        pool,
        run_dir=run_dir,
        device=CPU,
        cancelled=lambda: stop_after is not None and next(asked) > stop_after,
    )


def state(run_dir: Path) -> dict[str, Any]:
    from process_runs import newest

    return newest(run_dir)


def learner_of(job: SearchJob) -> SearchLearner:
    torch.manual_seed(0)
    return SearchLearner(job.space, job.budget, job.train, job.search)


def test_a_step_learns_choices_or_weights_never_both(pool: FeaturePool) -> None:
    job = tiny_search.job(warmup_share=0.5, choice_every=2)
    learner = learner_of(job)
    turns = [job.search.learns_choices(step, job.train) for step in range(12)]
    assert turns == [False] * 6 + [False, True] * 3
    for step in (0, 7):
        learner.zero_grad()
        loss = learner(tiny_training.TASK, [pool.patch(0)], step=step, generator=torch.Generator().manual_seed(0))
        loss.backward()
        learning = {
            name.partition(".")[0] for name, p in learner.named_parameters() if p.grad is not None and p.grad.any()
        }
        assert learning == ({"choices"} if turns[step] else {"network"})


def test_choices_and_weights_read_different_patches(pool: FeaturePool) -> None:
    job = tiny_search.job(
        train=tiny_training.config(steps=60, batch_size=2), choice_share=0.25, choice_every=2, warmup_share=0.1
    )
    source = SplitPool(pool=pool, config=job.train, search=job.search)
    assert (source.task, source.num_for_choices) == (pool.task, 1)
    stored = [pool.part(n, n + 1).patch(0).skips[0] for n in range(4)]
    read: dict[bool, set[int]] = {True: set(), False: set()}
    for step in range(60):
        for place in range(2):
            skip = source.patch(2 * step + place).skips[0]
            number = next(n for n in range(4) if torch.equal(skip, stored[n]))
            read[job.search.learns_choices(step, job.train)].add(number)
    assert read == {True: {3}, False: {0, 1, 2}}


def test_the_cost_is_the_time_above_the_budget_and_the_parameters() -> None:
    job = tiny_search.job(budget=0.1, penalty=3.0, parameter_weight=0.5)
    learner = learner_of(job)
    levels = learner.choices.probabilities()
    time, parameters = (float(f(levels).detach()) for f in (job.budget.time_share, job.budget.parameter_share))
    assert time > 0.1
    assert float(learner.cost().detach()) == pytest.approx(3 * (time / 0.1 - 1) + 0.5 * parameters)
    free = learner_of(tiny_search.job(budget=1.0, parameter_weight=0.0))
    assert float(free.cost().detach()) == 0


def test_the_temperature_waits_for_the_warm_up() -> None:
    search, train = SearchConfig(warmup_share=0.5), tiny_training.config(steps=101)
    values = [search.temperature(step, train) for step in (0, 50, 75, 100)]
    assert values == pytest.approx([5.0, 5.0, 0.5**0.5, 0.1], rel=0.05)


@pytest.mark.usefixtures("_without_pictures")
@pytest.mark.parametrize("stop_after", [1, 4, 7, 11])
def test_a_search_in_one_go_and_in_two_parts_gives_the_same_bits(
    pool: FeaturePool, tmp_path: Path, stop_after: int
) -> None:
    whole = searched(pool, tmp_path / "whole")
    with pytest.raises(Cancelled, match=r"the search was stopped at step \d+ of 12; go on with --resume"):
        searched(pool, tmp_path / "parts", stop_after=stop_after)
    assert searched(pool, tmp_path / "parts") == whole
    one, two = state(tmp_path / "whole"), state(tmp_path / "parts")
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert (tmp_path / "whole" / PATH).read_bytes() == (tmp_path / "parts" / PATH).read_bytes()


@pytest.mark.usefixtures("_without_pictures")
def test_half_a_line_of_a_killed_search_is_passed_over(pool: FeaturePool, tmp_path: Path) -> None:
    whole = searched(pool, tmp_path)
    lines = read_metrics(tmp_path / PATH)
    path = tmp_path / PATH
    path.write_bytes(path.read_bytes()[:-20])
    assert searched(pool, tmp_path) == whole
    assert read_metrics(path) == lines


@pytest.mark.usefixtures("_without_pictures")
def test_a_seed_decides_the_path_and_another_takes_another(pool: FeaturePool, tmp_path: Path) -> None:
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        searched(pool, tmp_path / name, tiny_search.job(train=dataclasses.replace(tiny_search.job().train, seed=seed)))
    a, b, c = ((tmp_path / name / PATH).read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.usefixtures("_without_pictures")
@pytest.mark.parametrize("budget", [0.08, 0.12])
def test_the_expected_time_comes_down_to_the_budget_and_the_decoder_keeps_it(
    pool: FeaturePool, tmp_path: Path, budget: float
) -> None:
    train = tiny_training.config(steps=60, checkpoint_every=60, log_every=20, learning_rate=2e-2, sampled_voxels=64)
    job = tiny_search.job(train=train, budget=budget, choice_every=2)
    spec = searched(pool, tmp_path, job)
    lines = read_metrics(tmp_path / PATH)
    assert lines[0]["step"] == 0
    assert lines[-1]["step"] == 60
    assert lines[0]["time_share"] > 1.2 * budget
    assert lines[-1]["time_share"] < 1.1 * budget
    assert job.budget.model.cost(spec).seconds <= budget * job.budget.full_seconds


def test_a_search_needs_two_patches(pool: FeaturePool, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="needs at least 2 encoded patches, one for weights and one for choices, got 1"):
        searched(pool.part(0, 1), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 1.5}, r"above 0 and at most 1, got 1\.5"),
        ({"last_temperature": 6.0}, r"must fall from first_temperature .* got 5\.0 to 6\.0"),
        ({"warmup_share": 1.0}, r"warmup_share must be at least 0 and below 1, got 1\.0"),
        ({"choice_share": 0.0}, r"choice_share above 0 and choice_every at least 2, got 0\.0 and 3"),
        ({"choice_every": 1}, r"got 0\.25 and 1"),
        ({"penalty": 0.0}, r"penalty must be above 0, got 0\.0"),
        ({"parameter_weight": -1.0}, r"parameter_weight must not be negative, got -1\.0"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        SearchConfig(**changes)


def test_the_picture_shows_the_bands_of_the_path(tmp_path: Path) -> None:
    """Oracle: a width whose probability falls from 1 to 0 has its color on the left and not on the right."""
    lines = []
    for step in range(0, 101, 10):
        share = step / 100
        levels = [
            {"widths": [1 - share, share] + [0.0] * n, "kernels": [1.0, 0.0, 0.0], "counts": [1.0, 0.0, 0.0]}
            for n in (1, 2)
        ]
        levels[1]["counts"] = [1.0]
        lines.append({"step": step, "time_share": 0.8 - 0.5 * share, "parameter_share": 0.5, "levels": levels})
    path = plot_path(
        [json.loads(json.dumps(line)) for line in lines], tiny_search.SPACE, tmp_path / "p.png", budget=0.3
    )
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        rgb = np.asarray(picture.convert("RGB")).astype(int)
    first = np.abs(rgb - np.array([76, 146, 195])).sum(axis=2) < 12  # tab:blue at 0.8 on white
    columns = np.flatnonzero(first.any(axis=0))
    widths = first[:, columns.min() : rgb.shape[1] // 3]  # the first column of panels
    heights = widths.sum(axis=0)
    quarter = len(heights) // 4
    assert heights[:quarter].mean() > 3 * heights[-quarter:].mean() > 0
