"""Is this installation fit to segment? Versions, device, memory, disk and registry, and what to do about the rest.

The diagnosis is made to be sent to a stranger: no patient data, no file names but the product's own, and no user name.
"""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__, machine
from .errors import RunError, WbcssError
from .privacy import hide_user
from .registry import Registry

REQUIRED = ("torch", "numpy", "scipy", "SimpleITK", "safetensors", "fastjsonschema", "pillow")
OPTIONAL = ("openvino", "monai", "highdicom")
LOW_MEMORY_MIB = 4096
"""A native chest CT needs about 2.5 GB on the CPU; below this the system would swap."""
LOW_DISK_MIB = 1024


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that keeps the product from working well, and the remedy."""

    what: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The state of an installation. All values are plain JSON.

    Attributes:
        versions: Version of every package, None where it is missing.
        system: Operating system, processor, memory and disk in MiB.
        device: What runs the network here and why, and what else there is.
        registry: Its tasks, how many organs, and whether every file is what was published.
        problems: Empty if all is well.
    """

    versions: Mapping[str, str | None]
    system: Mapping[str, Any]
    device: Mapping[str, Any]
    registry: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``wbcss doctor --json`` prints and the worker answers."""
        return {
            "versions": dict(self.versions),
            "system": dict(self.system),
            "device": dict(self.device),
            "registry": dict(self.registry),
            "problems": [{"what": p.what, "remedy": p.remedy} for p in self.problems],
        }


def diagnose(registry: Path) -> Diagnosis:
    """Look at everything once. Never raises for what it finds: findings become problems."""
    problems: list[Problem] = []
    versions = _versions(problems)
    system = _system(registry, problems)
    device = _device(problems) if versions["torch"] else {"chosen": None, "why": "torch is not installed"}
    return Diagnosis(
        versions=versions,
        system=system,
        device=device,
        registry=_registry(registry, problems),
        problems=tuple(problems),
    )


def _versions(problems: list[Problem]) -> dict[str, str | None]:
    versions: dict[str, str | None] = {"wbcss": __version__, "python": platform.python_version()}
    for name in REQUIRED + OPTIONAL:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
            if name in REQUIRED:
                problems.append(Problem(what=f"{name} is not installed", remedy=f"pip install {name}"))
    return versions


def _system(registry: Path, problems: list[Problem]) -> dict[str, Any]:
    total_mib, available_mib = machine.memory_mib()
    temporary = Path(tempfile.gettempdir())
    free_mib = machine.free_disk_mib(temporary)
    if available_mib is not None and available_mib < LOW_MEMORY_MIB:
        problems.append(
            Problem(
                what=f"only {available_mib} MiB of memory are free, a large CT needs about {LOW_MEMORY_MIB}",
                remedy="close other programs, or segment a cropped volume",
            )
        )
    if free_mib is not None and free_mib < LOW_DISK_MIB:
        problems.append(
            Problem(what=f"only {free_mib} MiB of disk are free for temporary files", remedy="free some disk space")
        )
    return {
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": machine.processor_name(),
        "cores": machine.usable_cores(),
        "memory_total_mib": total_mib,
        "memory_available_mib": available_mib,
        "disk_free_mib": machine.free_disk_mib(registry),
        "temporary_free_mib": free_mib,
    }


def _device(problems: list[Problem]) -> dict[str, Any]:
    """What ``--device auto`` takes, asked of the engine itself."""
    try:
        import torch

        from .backend_choice import has_fast_bfloat16
        from .backend_openvino import is_installed
        from .devices import resolve_device

        chosen = resolve_device("auto")
        cards = [_card(index) for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
        built_for = torch.version.cuda
        processor = torch.backends.cpu.get_cpu_capability()
        has_bf16 = torch.cuda.is_bf16_supported() if chosen.type == "cuda" else has_fast_bfloat16()
        has_openvino = is_installed()
    except (ImportError, OSError, RuntimeError, WbcssError) as error:
        what = f"torch does not start: {hide_user(_first_line(error))}"
        problems.append(Problem(what=what, remedy="install torch again: pip install --force-reinstall torch"))
        return {"chosen": None, "why": what}
    why = "it is the first CUDA device"
    if not cards:
        why = f"torch is built for CUDA {built_for} but sees no device" if built_for else "torch is built without CUDA"
    return {
        "chosen": str(chosen),
        "why": why,
        "cuda_devices": cards,
        "bf16": has_bf16,
        "processor_capability": processor,
        "openvino": has_openvino,
    }


def _card(index: int) -> dict[str, Any]:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_total_mib": total >> 20,
        "memory_free_mib": free >> 20,
    }


def _registry(folder: Path, problems: list[Problem]) -> dict[str, Any]:
    """Every weight file is hashed, so this takes as long as reading the registry once."""
    shown = hide_user(str(folder))
    registry = Registry(folder)
    try:
        encoder = registry.encoder_card()
        cards, broken, notes = registry.tasks(), registry.verify(), registry.notes()
    except WbcssError as error:
        remedy = "name a registry with --registry or WBCSS_REGISTRY"
        if isinstance(error, RunError):  # a package is missing, which has a problem of its own
            remedy = "install what is missing, then look again"
        problems.append(Problem(what=hide_user(str(error)), remedy=remedy))
        return {"path": shown, "encoder": None, "tasks": [], "organs": 0, "sound": False}
    for sentence in broken:
        remedy = "import the task again, or restore the registry from a copy"
        problems.append(Problem(what=hide_user(sentence), remedy=remedy))
    if not cards:
        problems.append(Problem(what=f"the registry {shown} holds no task", remedy="import one: wbcss tasks import"))
    return {
        "path": shown,
        "encoder": f"{encoder.name} {encoder.weights_sha256[:12]}",
        "tasks": [card.title for card in cards],
        "organs": len(registry.organs()),
        "sound": not broken,
        "notes": [hide_user(note) for note in notes],
    }


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
