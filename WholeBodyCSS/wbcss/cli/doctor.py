"""``wbcss doctor``: is this installation fit to segment, and what to do if not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..doctor import Diagnosis, diagnose
from ..errors import EXIT_DONE, EXIT_FAILED
from ..registry import REGISTRY_VARIABLE, default_registry_path
from .output import complain, say


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Describe the command."""
    parser = commands.add_parser(
        "doctor",
        help="check this installation",
        description="Show versions, the device that will be used and why, memory, disk and the health of the "
        "registry, and say what is missing and what to do. The output holds no patient data and no user name: it can "
        "be pasted into a bug report. Exit code 0 if all is well, 3 if not.",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--registry", type=Path, metavar="DIR", help=f"registry to check (default: {REGISTRY_VARIABLE}, else shipped)"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; 0 if there is no problem."""
    diagnosis = diagnose(args.registry or default_registry_path())
    say(json.dumps(diagnosis.to_json(), indent=2) if args.json else _text(diagnosis))
    if not diagnosis.problems:
        return EXIT_DONE
    count = len(diagnosis.problems)
    complain(f"{count} problem{'s' if count > 1 else ''} found; what to do is said with each")
    return EXIT_FAILED


def _text(diagnosis: Diagnosis) -> str:
    system, device, registry = diagnosis.system, diagnosis.device, diagnosis.registry
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in diagnosis.versions.items())
    memory = f"{_mib(system['memory_available_mib'])} of {_mib(system['memory_total_mib'])} free"
    disk = f"{_mib(system['disk_free_mib'])} free, {_mib(system['temporary_free_mib'])} for temporary files"
    lines = [
        f"versions   {versions}",
        f"system     {system['os']}, {system['machine']}",
        f"processor  {system['processor']}, {system['cores']} cores",
        f"memory     {memory}",
        f"disk       {disk}",
        f"device     {device['chosen'] or 'none'}: {device['why']}",
    ]
    if device.get("chosen"):
        available = [name for name in ("bf16", "openvino") if device[name]]
        lines.append(f"faster by  {', '.join(available) or 'nothing that is installed here'}")
    for number, card in enumerate(device.get("cuda_devices", ())):
        lines.append(f"cuda:{number}     {card['name']}, {_mib(card['memory_free_mib'])} free")
    state = "sound" if registry["sound"] else "not sound"
    lines.append(f"registry   {registry['path']}: {state}, {registry['organs']} organs")
    lines.append(f"tasks      {', '.join(registry['tasks']) or 'none'}")
    lines += [f"note       {note}" for note in registry.get("notes", ())]
    for problem in diagnosis.problems:
        lines += [f"PROBLEM    {problem.what}", f"           to do: {problem.remedy}"]
    return "\n".join(lines if diagnosis.problems else [*lines, "all is well"])


def _mib(value: int | None) -> str:
    if value is None:
        return "unknown"
    return f"{value / 1024:.1f} GiB" if value >= 1024 else f"{value} MiB"
