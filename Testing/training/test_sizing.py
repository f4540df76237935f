"""Size and speed of a model: closed forms against built networks, times against a clock that is wound by hand."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_registry
import torch

from wbcss.errors import RegistryError, SpecError
from wbcss.labels import TaskId
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import ChooseTasks, WholeBodyModel
from wbcss.progress import IsCancelled
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, spec_to_json
from wbcss_training.continual.cost import Cost, decoder_cost
from wbcss_training.sizing import timing
from wbcss_training.sizing.picture import draw_sizes
from wbcss_training.sizing.report import meets_goal, size_json, size_markdown
from wbcss_training.sizing.sizes import DecoderSize, TaskSize, model_size
from wbcss_training.sizing.timing import Runner, TileTimes, runners, time_model

ENCODER = tiny_registry.ENCODER_SPEC
FULL = DecoderSpec(stage_channels=(8, 9), kernels=((3, 3, 3),) * 2, convs_per_stage=(2, 2), num_organs=2)
CPU = torch.device("cpu")


def verdict(dice: float | None) -> dict[str, Any]:
    return {"mean": {"dice": dice}, "cases": 2}


def trimming(spec: DecoderSpec = FULL, dice: float | None = 0.9) -> dict[str, Any]:
    """As ``trimming.outcome`` sums a trimming up."""
    return {"full": {"spec": spec_to_json(spec), **verdict(dice)}, "kept": {}, "steps": []}


def parameters(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A trimmed task of two organs and one of one organ that was published as it was learned."""
    registry = tiny_registry.new_registry(tmp_path / "registry")
    record = {"held_out": verdict(0.897), "trimming": trimming()}
    tiny_registry.publish(registry, validation=record)
    tiny_registry.publish(registry, "spleen", {"spleen": 1}, seed=2, on_request=True)
    return registry


def test_sizes_are_those_of_the_built_networks(registry: Registry) -> None:
    model = model_size(registry)
    trimmed, plain = model.tasks
    assert model.encoder_cost.parameters == parameters(Encoder(ENCODER))
    for size in (trimmed.published, trimmed.full, plain.published):
        assert size.cost.parameters == parameters(Decoder(size.spec, ENCODER))
        assert size.cost == decoder_cost(size.spec, ENCODER)
    # nnU-Net's decoder on this encoder, written out, with the two organs of the task that has most.
    whole = dataclasses.replace(FULL, stage_channels=(2, 4))
    assert model.base_cost.parameters == parameters(Encoder(ENCODER), Decoder(whole, ENCODER))
    assert model.published_cost == trimmed.published.cost + plain.published.cost
    assert model.full_cost == trimmed.full.cost + plain.published.cost


def test_a_card_remembers_the_full_decoder(registry: Registry) -> None:
    trimmed, plain = model_size(registry).tasks
    assert (trimmed.title, trimmed.source, trimmed.full.spec, trimmed.on_request) == ("liver@1", "card", FULL, False)
    assert trimmed.dice_lost == pytest.approx(0.003)
    assert trimmed.times_fewer_macs == trimmed.full.cost.macs / trimmed.published.cost.macs > 1
    assert (plain.source, plain.times_fewer_macs, plain.dice_lost, plain.on_request) == ("itself", 1, None, True)


def test_a_registry_of_full_decoders_goes_before_the_card(registry: Registry, tmp_path: Path) -> None:
    full = tiny_registry.new_registry(tmp_path / "full")
    larger = dataclasses.replace(FULL, stage_channels=(12, 12))
    tiny_registry.publish(full, seed=3, spec=larger, validation={"held_out": verdict(0.95)})
    trimmed, plain = model_size(registry, full=full).tasks
    assert (trimmed.source, trimmed.full.spec) == ("registry", larger)
    assert trimmed.dice_lost == pytest.approx(0.053)
    assert plain.source == "itself"
    (only,) = model_size(registry, full=full, tasks=[TaskId("spleen")]).tasks
    assert only == plain
    assert model_size(registry, tasks=[TaskId("liver"), TaskId("liver")]).tasks == model_size(registry).tasks[:1]


def test_full_decoders_must_be_of_the_same_encoder(registry: Registry, tmp_path: Path) -> None:
    other = tiny_registry.new_registry(tmp_path / "other", seed=9)
    sha256 = registry.encoder_card().weights_sha256[:12]
    with pytest.raises(SpecError, match=rf"must be of the encoder {sha256}\.\.\., got a registry with "):
        model_size(registry, full=other)


def test_a_record_that_says_nothing_of_the_full_decoder_is_told(tmp_path: Path) -> None:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    tiny_registry.publish(registry, validation={"trimming": {"kept": {}}})
    with pytest.raises(SpecError, match=r"card of liver@1 must say .* got KeyError\('full'\); name the registry"):
        model_size(registry)


def test_a_registry_without_a_task_has_no_size(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no task is published in the registry"):
        model_size(tiny_registry.new_registry(tmp_path / "registry"))


@dataclasses.dataclass
class HandClock:
    """A backend and the clock that it winds: the encoder takes 10 s, every decoder a second per channel of level 0.

    Every third call is held up by a minute on both sides of the seam; a median does not see it.
    """

    network: WholeBodyModel
    now_s: float = 0.0
    calls: int = 0
    name: str = "made-up"
    num_calls: int = 0

    def features(
        self, tiles: torch.Tensor, cancelled: IsCancelled, choose: ChooseTasks | None = None
    ) -> Mapping[TaskId, torch.Tensor]:
        assert choose is not None
        assert tuple(tiles.shape) == (1, 1, *ENCODER.tile)
        self.calls += 1
        held_up_s = 60.0 if self.calls % 3 == 0 else 0.0
        self.now_s += 10 + held_up_s
        tasks = choose(tiles)
        self.now_s += sum(self.network.decoder(task).spec.stage_channels[0] for task in tasks) + held_up_s
        return {}


@pytest.fixture
def timed(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> TileTimes:
    made: list[HandClock] = []

    def make(request: Any, *_: object) -> HandClock:
        assert request.is_gated
        made.append(HandClock(request.network))
        return made[-1]

    monkeypatch.setattr(timing, "make_backend", make)
    monkeypatch.setattr(timing, "_now_s", lambda device: made[-1].now_s)
    monkeypatch.setattr(timing, "_head_s", lambda features, organs, *_, repeats: float(10 * features + organs))
    return time_model(model_size(registry), Runner(device=CPU, kind="float32"), repeats=5)


def test_encoder_and_decoders_are_timed_apart(timed: TileTimes, registry: Registry) -> None:
    trimmed, plain = model_size(registry).tasks
    assert (timed.backend, timed.clock, timed.encoder_s) == ("cpu made-up", "cpu", 10)
    assert [timed.decoder_s(size.spec) for size in (trimmed.published, trimmed.full, plain.published)] == [2, 8, 2]
    assert (timed.together_s, timed.full_together_s) == (2 + 2, 8 + 2)
    # Two published decoders of one architecture are timed once; their last layers differ.
    assert len(timed.decoders_s) == 2
    assert [timed.head_s(size.spec) for size in (trimmed.published, trimmed.full, plain.published)] == [22, 82, 21]


def test_a_real_tile_is_timed_and_random_numbers_stay_as_they_were(registry: Registry) -> None:
    state = torch.random.get_rng_state()
    model = model_size(registry)
    (runner,) = [runner for runner in runners(model, CPU) if runner.kind == "float32"]
    found = time_model(model, runner, repeats=2, threads=1)
    assert found.backend == "cpu torch-float32"
    assert min(found.encoder_s, found.together_s, *found.decoders_s.values(), *found.heads_s.values()) > 0
    assert bool((torch.random.get_rng_state() == state).all())


def test_a_time_needs_a_run(registry: Registry) -> None:
    with pytest.raises(SpecError, match="median of at least one run, got 0"):
        time_model(model_size(registry), Runner(device=CPU, kind="float32"), repeats=0)


def decoder(macs: int, dice: float | None) -> DecoderSize:
    return DecoderSize(spec=FULL, cost=Cost(parameters=macs, macs=macs), dice=dice)


@pytest.mark.parametrize(
    ("published", "full", "met"),
    [
        ((10, 0.895), (60, 0.9), True),
        ((10, 0.8949), (60, 0.9), False),
        ((11, 0.9), (60, 0.9), False),
        ((10, None), (60, 0.9), None),
        ((11, None), (60, None), False),
        ((10, 0.91), (100, 0.9), True),
    ],
)
def test_the_goal_is_six_times_fewer_at_half_a_point(
    published: tuple[int, float | None], full: tuple[int, float | None], met: bool | None
) -> None:
    task = TaskSize(title="a@1", published=decoder(*published), full=decoder(*full), source="card")
    assert meets_goal(task) is met


def test_a_report_adds_up_and_says_how_far_the_goals_are(registry: Registry, timed: TileTimes, tmp_path: Path) -> None:
    model = model_size(registry)
    values = size_json(model, [timed], machine="a desk", threads=3)
    ours, full = values["all_decoders"]["published"], values["all_decoders"]["full"]
    assert ours["macs"] == sum(task["published"]["macs"] for task in values["tasks"])
    assert ours["model_over_encoder_time"] == {"cpu made-up": 1.4}
    assert full["model_over_encoder_time"] == {"cpu made-up": 2.0}
    assert ours["added_to_base"] * values["base"]["parameters"] == pytest.approx(ours["parameters"])
    assert ours["added_to_encoder"] * values["encoder"]["parameters"] == pytest.approx(ours["parameters"])
    assert [task["meets_goal"] for task in values["tasks"]] == [meets_goal(task) for task in model.tasks]
    text = size_markdown(model, [timed], machine="a desk", threads=3)
    assert "over 3 thread(s), on a desk." in text
    assert "of its encoder, cpu made-up | 1.400 | 2.000 | below 2: met |" in text
    share = ours["added_to_base"]
    assert f"| {share:.3f} | {full['added_to_base']:.3f} | below 0.167: not met, {share / 0.167:.2f} times it |" in text
    assert "| spleen@1 (on request) | never trimmed | - | - | - | not met |" in text
    picture = draw_sizes(model, [timed], tmp_path / "size.png").read_bytes()
    assert picture == draw_sizes(model, [timed], tmp_path / "again.png").read_bytes()


def test_every_row_of_a_table_has_the_cells_of_its_title(registry: Registry, timed: TileTimes) -> None:
    text = size_markdown(model_size(registry), [timed, timed], machine="a desk", threads=1)
    tables = [list(lines) for is_row, lines in itertools.groupby(text.splitlines(), lambda n: n[:1] == "|") if is_row]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert [len(table) for table in tables] == [2 + 4, 2 + 2, 2 + 5]
