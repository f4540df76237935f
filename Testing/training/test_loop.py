"""The training loop: bitwise resume, stopping, shares of the datasets, divergence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from torch.optim.swa_utils import AveragedModel

from wbcss.errors import RunError, SpecError
from wbcss.labels import TaskId
from wbcss.progress import never
from wbcss_training.config import TrainConfig
from wbcss_training.loop import StepBatches, train

BOXES = tiny_training.BoxPatches()


def run(
    run_dir: Path,
    config: TrainConfig | None = None,
    *,
    source: tiny_training.BoxPatches = BOXES,
    num_workers: int = 0,
    stop_at: Callable[[], bool] = never,
    cancelled: Callable[[], bool] = never,
) -> AveragedModel:
    config = config or tiny_training.config()
    return train(
        tiny_training.learner(config),
        [source],
        config=config,
        run_dir=run_dir,
        num_workers=num_workers,
        stop_at=stop_at,
        cancelled=cancelled,
    )


def after(steps: int) -> Callable[[], bool]:
    """True from the ``steps``-th question on."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= steps


def newest(run_dir: Path) -> bytes:
    return (max((run_dir / "checkpoints").glob("step-*")) / "state.safetensors").read_bytes()


def logged(run_dir: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def assert_equal(one: AveragedModel, other: AveragedModel) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize("half", [1, 3, 5])
def test_steps_in_one_go_and_in_two_parts_give_the_same_bits(tmp_path: Path, half: int) -> None:
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop_at=after(half))
    parts = run(tmp_path / "parts")
    assert_equal(whole, parts)
    assert newest(tmp_path / "whole") == newest(tmp_path / "parts")  # networks, average and optimizer
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


@pytest.mark.slow
def test_patches_made_in_the_background_give_the_same_bits(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", num_workers=1, stop_at=after(3))
    assert_equal(whole, run(tmp_path / "parts", num_workers=1))
    assert newest(tmp_path / "whole") == newest(tmp_path / "parts")


def test_a_resumed_run_drops_the_log_after_its_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, stop_at=after(4))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "loss": 99.0}) + "\n" + '{"step": 6, "lo')
    run(tmp_path)
    assert [step for step, _ in logged(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert max(loss for _, loss in logged(tmp_path)) < 99


@pytest.mark.parametrize("how", ["stop_at", "cancelled"])
def test_stopping_leaves_a_checkpoint_of_the_last_step(tmp_path: Path, how: str) -> None:
    run(tmp_path, **{how: after(2)})  # type: ignore[arg-type]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]


def test_checkpoints_come_as_often_as_asked(tmp_path: Path) -> None:
    run(tmp_path, tiny_training.config(steps=5, checkpoint_every=2))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-0000004", "step-0000005"]


def test_a_finished_run_is_reported_as_finished_when_called_again(tmp_path: Path) -> None:
    config = tiny_training.config(steps=2)
    run(tmp_path, config)
    told: list[tuple[float, str]] = []
    train(
        tiny_training.learner(config),
        [BOXES],
        config=config,
        run_dir=tmp_path,
        num_workers=0,
        progress=lambda fraction, stage: told.append((fraction, stage)),
    )
    assert told == [(1.0, "step 2 of 2")]


def test_a_loss_that_is_not_finite_ends_the_run_before_it_reaches_the_weights(tmp_path: Path) -> None:
    source = tiny_training.BoxPatches(poison_at=4)
    with pytest.raises(RunError, match="loss and gradient of step 4 must be finite, got loss nan"):
        run(tmp_path, tiny_training.config(checkpoint_every=1), source=source)
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "step-0000004"
    average = run(tmp_path, tiny_training.config(steps=5))
    assert all(bool(torch.isfinite(value).all()) for value in average.state_dict().values())


def test_training_lowers_the_loss_of_boxes(tmp_path: Path) -> None:
    run(tmp_path, tiny_training.config(steps=60, learning_rate=2e-2, checkpoint_every=60))
    losses = [loss for _, loss in logged(tmp_path)]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])


def test_the_average_follows_its_decay(tmp_path: Path) -> None:
    config = tiny_training.config(steps=2, ema_decay=0.9)
    weights = []
    learner = tiny_training.learner(config)
    average = train(
        learner,
        [BOXES],
        config=config,
        run_dir=tmp_path,
        num_workers=0,
        progress=lambda fraction, stage: weights.append(
            learner.model.encoder.stages[0][0].conv.weight.detach().clone()
        ),
    )
    expected = 0.9 * weights[1] + 0.1 * weights[2]  # told before the first step and after each
    found = average.module.model.encoder.stages[0][0].conv.weight  # type: ignore[union-attr,index]
    torch.testing.assert_close(found, expected)


def test_datasets_get_their_share_of_the_steps() -> None:
    sources = [tiny_training.BoxPatches(task=TaskId(name)) for name in ("often", "seldom")]
    batches = StepBatches(sources, [3.0, 1.0], tiny_training.config(), 0, 1)
    tasks = [batches[step].task for step in range(400)]
    assert 400 * 0.75 - 35 < tasks.count(TaskId("often")) < 400 * 0.75 + 35
    assert tasks[:20] == [batches[step].task for step in range(20)]


def test_processes_share_a_batch_without_repeating_a_patch() -> None:
    config = tiny_training.config(batch_size=4)
    whole = StepBatches([BOXES], [1.0], config, 0, 1)[3].patches
    parts = [patch for rank in (0, 1) for patch in StepBatches([BOXES], [1.0], config, rank, 2)[3].patches]
    assert [torch.equal(one.image, other.image) for one, other in zip(whole, parts, strict=True)] == [True] * 4
    assert not torch.equal(whole[0].image, whole[1].image)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.0], [-1.0], [float("nan")], []])
def test_a_share_that_is_not_positive_is_refused(tmp_path: Path, weights: list[float]) -> None:
    config = tiny_training.config()
    with pytest.raises(SpecError, match=r"weights must be one positive number for each of the 1 sources, got \["):
        train(tiny_training.learner(config), [BOXES], config=config, run_dir=tmp_path, weights=weights, num_workers=0)


def test_a_run_without_data_is_refused(tmp_path: Path) -> None:
    config = tiny_training.config()
    with pytest.raises(SpecError, match="at least one source of patches, got none"):
        train(tiny_training.learner(config), [], config=config, run_dir=tmp_path, num_workers=0)
