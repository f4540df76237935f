"""Training in rounds: when to stop, and whose weights are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from torch.optim.swa_utils import AveragedModel

from wbcss.errors import Cancelled, RunError
from wbcss.nn.encoder import Encoder, freeze
from wbcss_training import rounds
from wbcss_training.config import TrainConfig
from wbcss_training.enrollment import Schedule
from wbcss_training.features import FeaturePool, FeatureSpec, encode_pool
from wbcss_training.learner import DecoderLearner, Learner, build_decoder_learner, build_learner
from wbcss_training.rounds import TrainedDecoder, held_out_loss, train_in_rounds

SPEC = FeatureSpec(patch=tiny_training.ENCODER.tile, num_skips=3, autocast=False)
CONFIG = tiny_training.config(steps=8, sampled_voxels=256, checkpoint_every=3)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "draw_curves", lambda run_dir: run_dir)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(4)
    encoder = Encoder(tiny_training.ENCODER)
    freeze(encoder)
    return encoder


@pytest.fixture(scope="module")
def pools(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[FeaturePool, FeaturePool]:
    folder = tmp_path_factory.mktemp("pools")
    boxes = [tiny_training.BoxPatches(seed=seed) for seed in (5, 6)]
    one, other = (
        encode_pool(source, encoder, folder / str(source.seed), count=2, spec=SPEC, device=CPU) for source in boxes
    )
    return one, other


def schedule(config: TrainConfig = CONFIG, *, patience: int | None = None, coarse_steps: int = 0) -> Schedule:
    return Schedule(
        config=config,
        decoder=tiny_training.decoder_spec(),
        features=SPEC,
        num_training=2,
        num_validation=2,
        bytes_per_patch=1,
        coarse_steps=coarse_steps,
        round_steps=2,
        patience=patience,
    )


def learner(encoder: Encoder, config: TrainConfig = CONFIG) -> DecoderLearner:
    torch.manual_seed(config.seed)
    return build_decoder_learner(encoder, tiny_training.decoder_spec(), config)


def run(
    encoder: Encoder,
    pools: tuple[FeaturePool, FeaturePool],
    run_dir: Path,
    *,
    patience: int | None = None,
    coarse_steps: int = 0,
    stop_after: int | None = None,
) -> TrainedDecoder:
    asked = iter(range(1, 1000))
    return train_in_rounds(
        learner(encoder),
        *pools,
        schedule=schedule(patience=patience, coarse_steps=coarse_steps),
        run_dir=run_dir,
        cancelled=lambda: stop_after is not None and next(asked) > stop_after,
    )


def assert_equal(one: TrainedDecoder, other: TrainedDecoder) -> None:
    assert (one.steps, one.best_step) == (other.steps, other.best_step)
    assert [name for name in one.state if not torch.equal(one.state[name], other.state[name])] == []


def pretend(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the looks at the held-out patches find ``losses``."""
    found: Iterator[float] = iter(losses)
    monkeypatch.setattr(rounds, "held_out_loss", lambda average, held_out, seed: next(found))


@pytest.mark.parametrize(
    ("patience", "losses", "steps", "best"),
    [
        (None, [3.0, 1.0, 2.0, 2.5], 8, 8),  # nobody asked to stop: the last weights count
        (2, [3.0, 2.0, 1.0, 0.5], 8, 8),
        (2, [3.0, 1.0, 2.0, 1.5], 8, 4),
        (1, [1.0, 2.0], 4, 2),
        (2, [1.0, 1.0, 1.0], 6, 2),  # as good is not better
    ],
)
def test_training_stops_when_the_held_out_loss_has_not_fallen_for_long_enough(
    encoder: Encoder,
    pools: tuple[FeaturePool, FeaturePool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patience: int | None,
    losses: list[float],
    steps: int,
    best: int,
) -> None:
    every_two = run(encoder, pools, tmp_path / "shorter", patience=None) if best == 8 else None
    pretend(monkeypatch, losses)
    trained = run(encoder, pools, tmp_path / "run", patience=patience)
    assert (trained.steps, trained.best_step) == (steps, best)
    if every_two is not None:
        assert_equal(trained, every_two)


def test_the_best_weights_are_those_that_the_average_had_then(
    encoder: Encoder, pools: tuple[FeaturePool, FeaturePool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}
    losses = iter([3.0, 1.0, 2.0, 1.5])

    def look(average: AveragedModel, held_out: FeaturePool, seed: int) -> float:
        module = average.module
        assert isinstance(module, DecoderLearner)
        seen[int(average.n_averaged)] = {name: value.clone() for name, value in module.decoder.state_dict().items()}
        return next(losses)

    monkeypatch.setattr(rounds, "held_out_loss", look)
    trained = run(encoder, pools, tmp_path / "run", patience=2)
    assert list(seen) == [2, 4, 6, 8]
    assert [name for name, value in trained.state.items() if not torch.equal(value, seen[4][name])] == []
    assert any(not torch.equal(value, seen[8][name]) for name, value in trained.state.items())


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("patience", "coarse_steps"), [(None, 0), (1, 4)])
def test_rounds_in_one_go_and_in_two_parts_give_the_same_bits(
    encoder: Encoder,
    pools: tuple[FeaturePool, FeaturePool],
    tmp_path: Path,
    patience: int | None,
    coarse_steps: int,
    stop_after: int,
) -> None:
    how = {"patience": patience, "coarse_steps": coarse_steps}
    whole = run(encoder, pools, tmp_path / "whole", **how)
    with pytest.raises(Cancelled, match=r"the training was stopped at step \d of 8; go on with --resume"):
        run(encoder, pools, tmp_path / "parts", **how, stop_after=stop_after)
    assert_equal(whole, run(encoder, pools, tmp_path / "parts", **how))
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    assert [line.split(', "seconds"')[0] for line in logs[0]] == [line.split(', "seconds"')[0] for line in logs[1]]


def test_the_finest_level_rests_in_the_coarse_part_and_learns_afterwards(
    encoder: Encoder, pools: tuple[FeaturePool, FeaturePool], tmp_path: Path
) -> None:
    start = learner(encoder).decoder.state_dict()
    coarse = run(encoder, pools, tmp_path / "coarse", coarse_steps=8).state
    both = run(encoder, pools, tmp_path / "both", coarse_steps=4).state
    finest = {name for name in start if name.startswith(("ups.0.", "stages.0.", "head."))}
    assert {name for name in start if torch.equal(coarse[name], start[name])} == finest
    assert not any(torch.equal(both[name], start[name]) for name in finest)


def test_looks_of_the_coarse_part_do_not_decide(
    encoder: Encoder, pools: tuple[FeaturePool, FeaturePool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, [0.1, 0.2, 3.0, 4.0])  # losses of another level are other numbers
    trained = run(encoder, pools, tmp_path, patience=1, coarse_steps=4)
    assert (trained.steps, trained.best_step) == (8, 6)


def test_a_look_that_was_not_logged_is_taken_again(
    encoder: Encoder, pools: tuple[FeaturePool, FeaturePool], tmp_path: Path
) -> None:
    """As after a kill between the weights of the best round and the line that says so."""
    whole = run(encoder, pools, tmp_path, patience=3)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    last = max(number for number, line in enumerate(lines) if "validation_loss" in line)
    path.write_text("\n".join(lines[:last]) + '\n{"step": 8, "valid')
    assert_equal(whole, run(encoder, pools, tmp_path, patience=3))
    assert path.read_text().splitlines() == lines


def test_the_held_out_loss_is_the_mean_training_loss_of_the_averaged_decoder(
    encoder: Encoder, pools: tuple[FeaturePool, FeaturePool]
) -> None:
    config = dataclasses.replace(CONFIG, sampled_voxels=10**6)  # all voxels: nothing is drawn
    average = AveragedModel(learner(encoder, config))
    module = average.module
    with torch.no_grad():
        losses = [
            float(module(tiny_training.TASK, [pools[1].patch(n)], step=0, generator=torch.Generator()))
            for n in range(2)
        ]
    assert held_out_loss(average, pools[1], seed=3) == pytest.approx(np.mean(losses))


def test_a_decoder_that_diverged_is_told(encoder: Encoder, pools: tuple[FeaturePool, FeaturePool]) -> None:
    average = AveragedModel(learner(encoder))
    with torch.no_grad():
        next(average.parameters()).fill_(float("nan"))
    with pytest.raises(RunError, match="the loss on held-out cases must be finite, got nan"):
        held_out_loss(average, pools[1], seed=0)


def test_an_average_of_a_whole_network_is_refused(encoder: Encoder, pools: tuple[FeaturePool, FeaturePool]) -> None:
    whole = build_learner(encoder, {tiny_training.TASK: tiny_training.decoder_spec()}, CONFIG)
    with pytest.raises(RunError, match="the average must hold a DecoderLearner, got Learner"):
        held_out_loss(AveragedModel(whole), pools[1], seed=0)


def test_lost_best_weights_are_told(encoder: Encoder, pools: tuple[FeaturePool, FeaturePool], tmp_path: Path) -> None:
    run(encoder, pools, tmp_path, patience=3)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(RunError, match=r"the best weights of the run, best\.safetensors, must be readable, got"):
        run(encoder, pools, tmp_path, patience=3)


def test_on_features_the_decoder_gets_the_gradient_of_the_whole_network(
    encoder: Encoder, pools: tuple[FeaturePool, FeaturePool]
) -> None:
    """The features are float16, so the two agree to about a thousandth."""
    config = dataclasses.replace(CONFIG, sampled_voxels=10**6)
    alone = learner(encoder, config)
    whole = build_learner(encoder, {tiny_training.TASK: tiny_training.decoder_spec()}, config)
    whole.model.decoder(tiny_training.TASK).load_state_dict(alone.decoder.state_dict())
    whole.supervision[tiny_training.TASK].load_state_dict(alone.supervision.state_dict())
    source, pool = tiny_training.BoxPatches(seed=5), pools[0]
    patches = [source.patch(n) for n in range(2)]
    order = [next(n for n in range(2) if torch.equal(pool.patch(m).labels, patches[n].labels)) for m in range(2)]
    for module, samples in ((alone, [pool.patch(n) for n in range(2)]), (whole, [patches[n] for n in order])):
        module(tiny_training.TASK, samples, step=0, generator=torch.Generator()).backward()
    pairs = zip(alone.decoder.parameters(), whole.model.decoder(tiny_training.TASK).parameters(), strict=True)
    ours, theirs = (torch.cat([g.grad.flatten() for g in side]) for side in zip(*pairs, strict=True))  # type: ignore[union-attr]
    assert float((ours - theirs).norm()) < 5e-3 * float(theirs.norm())
    assert all(parameter.grad is None for parameter in whole.model.encoder.parameters())
    assert not any("encoder" in name for name in alone.state_dict())
    assert isinstance(whole, Learner)
