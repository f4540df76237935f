"""Found numbers as Markdown and JSON."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rows import Found, outside_network


def to_json(found: Mapping[str, Found], scale: str) -> dict[str, Any]:
    """Everything, for machines."""
    return {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "scale": scale,
        "versions": versions(found),
        "rows": {
            name: {
                "goals": [{**dataclasses.asdict(goal), "verdict": goal.verdict} for goal in part.goals],
                "numbers": [dict(number) for number in part.numbers],
                "missing": list(part.missing),
            }
            for name, part in found.items()
        },
    }


def to_markdown(found: Mapping[str, Found], scale: str) -> str:
    """Two tables, for people: the goals, then every run."""
    loaded = ", ".join(f"{name} {version}" for name, version in versions(found).items())
    lines = [
        "# Benchmark results",
        "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, scale `{scale}`, one thread per run. {machine()}. {loaded}.",
        "",
        "## Goals",
        "| row | what | ours | held against | ratio | goal | |",
        "|-|-|-|-|-|-|-|",
    ]
    notes: list[str] = []
    for part in found.values():
        for goal in part.goals:
            sign = "≥" if goal.at_least else "≤"
            mark = ""
            if goal.note:
                if goal.note not in notes:
                    notes.append(goal.note)
                mark = f" ({notes.index(goal.note) + 1})"
            lines.append(
                f"| {goal.row} | {goal.what}{mark} | {goal.ours} | {goal.peer} | {_short(goal.value)} "
                f"| {sign} {_short(goal.goal)} | {goal.verdict} |"
            )
    lines += ["", *(f"({number}) {note}" for number, note in enumerate(notes, start=1))]
    lines += ["", "## Every run", *_runs(found)]
    missing = [text for part in found.values() for text in part.missing]
    if missing:
        lines += ["", "## Not measured", *(f"- {text}" for text in dict.fromkeys(missing))]
    return "\n".join(lines) + "\n"


def _runs(found: Mapping[str, Found]) -> list[str]:
    lines = [
        "Wall and CPU time and peak are the whole process, imports included. *Outside network* is the CPU time of the "
        "measured part without the network; *added* its memory peak above what was there when it began (libraries, "
        "network, scan). *Agreement* is with float32 averaging of all logits.",
        "",
        "| what | system | wall s | CPU s | CPU s outside network | peak MiB | added MiB | tiles | agreement |",
        "|-|-|-|-|-|-|-|-|-|",
    ]
    seen: set[str] = set()
    for part in found.values():
        for number in part.numbers:
            line = _run_line(number)
            if line not in seen:
                seen.add(line)
                lines.append(line)
    return lines


def _run_line(number: Mapping[str, Any]) -> str:
    result = number["result"]
    outside = f"{outside_network(result):.1f}" if result["network_cpu_s"] is not None else ""
    same = f"{number['agreement']:.5f}" if "agreement" in number else ""
    return (
        f"| {number['where']} | {result['job']['system']} | {result['wall_s']:.1f} | {result['cpu_s']:.1f} | {outside} "
        f"| {result['peak_mib']:.0f} | {result['added_mib']:.0f} | {result['details'].get('tiles', '')} | {same} |"
    )


def _short(value: float) -> str:
    """A ratio below one half as 1/n, which is how the goals are written."""
    if 0 < value < 0.5 and value not in (0.05, 0.1):
        return f"1/{1 / value:.1f}".replace(".0", "")
    return f"{value:.5g}" if 0.9 < value < 1 else f"{value:.3g}"


def versions(found: Mapping[str, Found]) -> dict[str, str]:
    """Of all libraries that any run loaded."""
    known: dict[str, str] = {}
    for part in found.values():
        for number in part.numbers:
            known.update(number["result"]["versions"])
    return known


def machine() -> str:
    """Processor, cores and memory."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    names = _values(info, "model name")
    memory = _values(Path("/proc/meminfo").read_text().splitlines(), "MemTotal")
    gib = f"{int(memory[0].split()[0]) / 2**20:.0f} GiB" if memory else "unknown memory"
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores, {gib}"


def _values(lines: Sequence[str], name: str) -> list[str]:
    return [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
