"""What `wbcss-train size` writes: JSON for machines, Markdown for people, both with the distance to the goals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from wbcss.specs import spec_to_json

from ..continual.cost import Cost
from .precision import FLOAT32, HALF, INT8, PrecisionCost
from .sizes import DecoderSize, ModelSize, TaskSize
from .timing import TileTimes

MACS_GOAL, DICE_GOAL = 6.0, 0.005
"""A trimmed decoder has so many times fewer multiply-accumulates and at most so much less Dice than the full one."""

TIME_GOAL = 2.0
"""The model of all tasks takes less than so many times the time of its encoder alone."""

GROWTH_GOAL = 0.167
"""Parameters that all tasks add, as a share of the base: LoCo-PVT's (MICCAI 2024), by low-rank adapters."""


def size_json(
    model: ModelSize,
    times: Sequence[TileTimes],
    *,
    machine: str,
    threads: int,
    precisions: Sequence[PrecisionCost] = (),
) -> dict[str, Any]:
    """Plain JSON values; costs and seconds are for one tile, those of ``precision`` for one patch."""
    return {
        "format": "wbcss-size",
        "format_version": 1,
        "machine": machine,
        "threads": threads,
        "tile": list(model.encoder.tile),
        "encoder": {
            **dataclasses.asdict(model.encoder_cost),
            "seconds": {timed.backend: timed.encoder_s for timed in times},
        },
        "clocks": {timed.backend: timed.clock for timed in times},
        "tasks": [_task_json(task, times) for task in model.tasks],
        "all_decoders": {
            "published": _all_json(model, model.published_cost, {t.backend: t.together_s for t in times}, times),
            "full": _all_json(model, model.full_cost, {t.backend: t.full_together_s for t in times}, times),
        },
        "base": dataclasses.asdict(model.base_cost),
        "precision": [dataclasses.asdict(cost) for cost in precisions],
        "goals": {
            "times_fewer_macs": MACS_GOAL,
            "dice_lost": DICE_GOAL,
            "model_over_encoder_time": TIME_GOAL,
            "added_parameters": GROWTH_GOAL,
        },
    }


def _task_json(task: TaskSize, times: Sequence[TileTimes]) -> dict[str, Any]:
    return {
        "task": task.title,
        "full_known_from": task.source,
        "on_request": task.on_request,
        "published": _decoder_json(task.published, times),
        "full": _decoder_json(task.full, times),
        "times_fewer_macs": task.times_fewer_macs,
        "dice_lost": task.dice_lost,
        "meets_goal": meets_goal(task),
    }


def _decoder_json(size: DecoderSize, times: Sequence[TileTimes]) -> dict[str, Any]:
    return {
        "spec": spec_to_json(size.spec),
        **dataclasses.asdict(size.cost),
        "dice": size.dice,
        "seconds": {timed.backend: timed.decoder_s(size.spec) for timed in times},
        "last_layer_seconds": {timed.backend: timed.head_s(size.spec) for timed in times},
    }


def _all_json(model: ModelSize, cost: Cost, seconds: dict[str, float], times: Sequence[TileTimes]) -> dict[str, Any]:
    return {
        **dataclasses.asdict(cost),
        "seconds": seconds,
        "macs_over_encoder": cost.macs / model.encoder_cost.macs,
        "model_over_encoder_time": {t.backend: 1 + seconds[t.backend] / t.encoder_s for t in times},
        "added_to_encoder": cost.parameters / model.encoder_cost.parameters,
        "added_to_base": cost.parameters / model.base_cost.parameters,
    }


def meets_goal(task: TaskSize) -> bool | None:
    """Whether ``task`` became small enough and stayed good enough; None if its Dice is not known."""
    if task.times_fewer_macs < MACS_GOAL:
        return False
    return None if task.dice_lost is None else round(task.dice_lost, 6) <= DICE_GOAL  # free of rounding in binary


def size_markdown(
    model: ModelSize,
    times: Sequence[TileTimes],
    *,
    machine: str,
    threads: int,
    precisions: Sequence[PrecisionCost] = (),
) -> str:
    """The same as tables for people."""
    i, j, k = model.encoder.tile
    lines = [
        "# Size and speed",
        "",
        f"For one tile of {i} x {j} x {k} voxels. Times are medians, of a CPU its own time over {threads} thread(s), "
        f"on {machine}. Those of decoders are without their last layer, which runs once per voxel of a scan and not "
        "once per tile; it is given beside them, on every voxel of a tile.",
        "",
        *_costs(model, times),
        "",
        *_tasks(model),
        "",
        *_totals(model, times),
        *_precisions(precisions),
    ]
    return "\n".join(lines) + "\n"


def _costs(model: ModelSize, times: Sequence[TileTimes]) -> list[str]:
    backends = "".join(f" {t.backend} ({t.clock}) |" for t in times)
    lines = [
        f"| network | channels | convolutions | parameters | GMAC |{backends}",
        f"|---|---|---|--:|--:|{'--:|' * len(times)}",
    ]
    spec = model.encoder
    row = ["encoder", _joined(spec.stage_channels), _joined(spec.convs_per_stage), *_cost(model.encoder_cost)]
    lines.append(_row([*row, *(_ms(t.encoder_s) for t in times)]))
    for task in model.tasks:
        sizes = {task.title: task.published} | ({} if task.source == "itself" else {f"{task.title} full": task.full})
        for name, size in sizes.items():
            row = [name, _joined(size.spec.stage_channels), _joined(size.spec.convs_per_stage), *_cost(size.cost)]
            cells = (f"{_ms(t.decoder_s(size.spec))} + {_ms(t.head_s(size.spec))}" for t in times)
            lines.append(_row([*row, *cells]))
    return lines


def _tasks(model: ModelSize) -> list[str]:
    lines = [
        f"Goal: at least {MACS_GOAL:g} times fewer multiply-accumulates, at most {100 * DICE_GOAL:g} Dice points lost.",
        "",
        "| task | times fewer MACs | Dice full | Dice published | points lost | goal |",
        "|---|--:|--:|--:|--:|---|",
    ]
    words = {True: "met", False: "not met", None: "Dice not known"}
    for task in model.tasks:
        lost = "-" if task.dice_lost is None else f"{100 * task.dice_lost:.2f}"
        fewer = "never trimmed" if task.source == "itself" else f"{task.times_fewer_macs:.1f}"
        dice = (_number(task.full.dice), _number(task.published.dice))
        name = f"{task.title} (on request)" if task.on_request else task.title
        lines.append(_row([name, fewer, *dice, lost, words[meets_goal(task)]]))
    return lines


def _totals(model: ModelSize, times: Sequence[TileTimes]) -> list[str]:
    rows: list[tuple[str, float, float, str]] = []
    costs = model.published_cost, model.full_cost
    rows.append(("MACs of all decoders over those of the encoder", *_over(costs, "macs", model.encoder_cost), ""))
    for timed in times:
        ratios = (1 + timed.together_s / timed.encoder_s, 1 + timed.full_together_s / timed.encoder_s)
        name = f"time of the whole model over that of its encoder, {timed.backend}"
        rows.append((name, *ratios, _distance(ratios[0], TIME_GOAL)))
    rows.append(("parameters added to the encoder", *_over(costs, "parameters", model.encoder_cost), ""))
    added = _over(costs, "parameters", model.base_cost)
    name = "parameters added to the base, encoder and one full decoder"
    rows.append((name, *added, _distance(added[0], GROWTH_GOAL)))
    lines = [f"| all {len(model.tasks)} task(s) | published | full | goal |", "|---|--:|--:|---|"]
    return lines + [_row([name, f"{ours:.3f}", f"{full:.3f}", goal]) for name, ours, full, goal in rows]


def _precisions(precisions: Sequence[PrecisionCost]) -> list[str]:
    if not precisions:
        return []
    lines = [
        "",
        "Decoders in fewer bits: Dice on held-out patches, lost against float32, and processor time of a patch. "
        f"`{HALF}` is what the engine runs where OpenVINO is installed, `{INT8}` the same with 8-bit convolutions; the "
        "engine does not run that.",
        "",
        "| task | patch | patches | precision | Dice | points lost | time |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    for cost in precisions:
        for name, dice in cost.dice.items():
            lost = f"{100 * (cost.dice[FLOAT32] - dice):.2f}"
            facts = (cost.title, _joined(cost.patch), str(cost.patches), name)
            lines.append(_row([*facts, _number(dice), lost, _ms(cost.seconds[name])]))
    return lines


def _over(costs: Sequence[Cost], name: str, base: Cost) -> tuple[float, float]:
    one, other = (getattr(cost, name) / getattr(base, name) for cost in costs)
    return one, other


def _distance(value: float, goal: float) -> str:
    return f"below {goal:g}: " + ("met" if value < goal else f"not met, {value / goal:.2f} times it")


def _cost(cost: Cost) -> tuple[str, str]:
    return f"{cost.parameters / 1e6:.3f} M", f"{cost.macs / 1e9:.2f}"


def _joined(numbers: Sequence[int]) -> str:
    return "-".join(map(str, numbers))


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
