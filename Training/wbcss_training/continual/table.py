"""The benchmark as Markdown: one row per method, the matrices, every organ, and the learning curve of few cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .benchmark import MethodResult
from .matrix import Forgetting
from .methods import UPPER_BOUND
from .peers import Peer


def benchmark_markdown(name: str, results: Sequence[MethodResult], peers: Sequence[Peer] = ()) -> str:
    """The whole report on sequence ``name``; ``peers`` are outside programs measured on the same validation."""
    lines = [f"# Continual benchmark `{name}`", "", *_summary(results, peers), ""]
    for result in results:
        lines += ["", f"## {result.title}", "", *_matrix(result), ""]
        lines += _organs(result)
    return "\n".join(lines) + "\n"


def _summary(results: Sequence[MethodResult], peers: Sequence[Peer]) -> list[str]:
    bound = next((result.matrix for result in results if result.name == UPPER_BOUND), None)
    lines = [
        "Dice after the last task; BWT is the mean change of earlier tasks since they were learned (0: nothing "
        "forgotten); *before merging* asks every task's own decoder alone; the gap is in Dice points below separate "
        "networks; cost added per task after the first, multiply-accumulates per tile; time in training.",
        "",
        "| method | Dice | when learned | BWT | relative BWT | BWT before merging | gap | parameters | "
        "added per task | GMAC | added per task | wall s | CPU s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [_row(result, bound) for result in results]
    lines += [
        f"| {peer.title} | {_number(peer.dice)} | | | | | {_gap(peer.dice, bound)} | {_number(peer.parameters, 0)} "
        f"| | | | {_number(peer.wall_s, 0)} | |"
        for peer in peers
    ]
    return lines


def _row(result: MethodResult, bound: Forgetting | None) -> str:
    matrix, alone = result.matrix, result.matrix_alone
    last, later = result.cells[-1], result.cells[1:]
    own = result.scope == "own"
    costs = [
        sum(cell.parameters for cell in result.cells) if own else last.parameters,
        sum(cell.added_parameters for cell in later) / len(later) if later else None,
        sum(cell.gmacs for cell in result.cells) if own else last.gmacs,
        sum(cell.added_gmacs for cell in later) / len(later) if later else None,
    ]
    return " | ".join(
        [
            f"| {result.title}",
            _number(matrix.average),
            _number(matrix.learned),
            _number(matrix.backward_transfer, 4),
            _number(matrix.relative_backward_transfer, 4),
            _number(None if alone is None else alone.backward_transfer, 4),
            _number(None if bound is None else matrix.below(bound), 1),
            _number(costs[0], 0),
            _number(costs[1], 0),
            _number(costs[2], 1),
            _number(costs[3], 1),
            _number(sum(cell.wall_s for cell in result.cells), 0),
            _number(sum(cell.cpu_s for cell in result.cells), 0) + " |",
        ]
    )


def _gap(dice: float | None, bound: Forgetting | None) -> str:
    if dice is None or bound is None or bound.average is None:
        return "-"
    return _number(100 * (bound.average - dice), 1)


def _matrix(result: MethodResult) -> list[str]:
    """R, and R before merging beside it where there is one."""
    alone = result.matrix_alone
    count = result.num_tasks
    lines = [
        "| after task | " + " | ".join(f"task {j + 1}" for j in range(count)) + " |",
        "|---|" + "--:|" * count,
    ]
    for i, row in enumerate(result.matrix.rows):
        cells = [_number(value) for value in row]
        if alone is not None:
            cells = [f"{cell} ({_number(raw)})" for cell, raw in zip(cells, alone.rows[i], strict=True)]
        lines.append(f"| {i + 1} | " + " | ".join(cells) + " |")
    return lines


def _organs(result: MethodResult) -> list[str]:
    """Final metrics of every organ of every task."""
    lines = [
        "| task | organ | cases | Dice | HD95 mm | surface Dice | Dice before merging |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for j, organs in enumerate(result.task_organs):
        cell = next((cell for cell in reversed(result.cells) if j in cell.scores), None)
        if cell is None:
            continue
        for organ in organs:
            row = cell.scores[j].get(organ)
            if row is not None:
                raw = cell.alone.get(j, {}).get(organ, {}).get("dice")
                lines.append(f"| {j + 1} | {organ} | {_metrics(row)} | {_number(raw)} |")
    return lines


def _metrics(row: Mapping[str, float | None]) -> str:
    digits = {"count": 0, "dice": 3, "hd95_mm": 1, "surface_dice": 3}
    return " | ".join(_number(row.get(name), places) for name, places in digits.items())


def few_shot_markdown(name: str, curves: Mapping[str, Mapping[int, float | None]]) -> str:
    """Mean Dice by number of training cases; ``curves`` is by title of the method."""
    counts = sorted({count for curve in curves.values() for count in curve})
    lines = [
        f"# Few-shot curve of `{name}`",
        "",
        "Mean Dice on the validation cases by number of training cases.",
        "",
        "| method | " + " | ".join(str(count) for count in counts) + " |",
        "|---|" + "--:|" * len(counts),
    ]
    for title, curve in curves.items():
        lines.append(f"| {title} | " + " | ".join(_number(curve.get(count)) for count in counts) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
