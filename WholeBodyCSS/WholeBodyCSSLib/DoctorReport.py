"""Is this Slicer fit to segment? The engine's diagnosis, the preferences and the chosen scan, as lines to read.

Everything here may be sent to a stranger: no names of volumes, no paths with user names, no name of the computer.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from wbcss import __version__
from wbcss.privacy import hide_user

from .Translation import _

State = Literal["good", "note", "bad"]

_BASE_MIB = 1300
_MIB_PER_FURTHER_TASK = 350
_MEMORY_BYTES_PER_VOXEL = 34
_DISK_BYTES_PER_VOXEL = 8
_BASE_DISK_MIB = 200
"""Upper ends of Testing/benchmarks/RESULTS.md (peak of the whole process) and of the files that a run exchanges."""


@dataclass(frozen=True)
class Needs:
    """What a segmentation is expected to take at most."""

    memoryMib: int
    diskMib: int


def needsOf(numVoxels: int, numTasks: int) -> Needs:
    """For a scan of ``numVoxels`` and ``numTasks`` decoders; the number of organs does not matter."""
    memory = _BASE_MIB + _MIB_PER_FURTHER_TASK * max(0, numTasks - 1) + numVoxels * _MEMORY_BYTES_PER_VOXEL / 2**20
    return Needs(memoryMib=round(memory), diskMib=round(_BASE_DISK_MIB + numVoxels * _DISK_BYTES_PER_VOXEL / 2**20))


@dataclass(frozen=True, kw_only=True)
class Host:
    """What Slicer knows and the engine does not.

    Attributes:
        slicerVersion: As in ``5.12.3``.
        device, quality: Preferences.
        isOwnRegistry: Whether the user's own registry is in use.
        isOwnWritable: Whether the folder for own tasks can be written, or made.
        missing: Packages that must be installed, torch first.
        isInterrupted: Whether an installation began and did not end.
        needs: Of the chosen scan; None if none is chosen.
    """

    slicerVersion: str
    device: str = "auto"
    quality: str = "normal"
    isOwnRegistry: bool = False
    isOwnWritable: bool = True
    missing: tuple[str, ...] = ()
    isInterrupted: bool = False
    needs: Needs | None = None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finding: what was looked at, what was found, whether it is good, and what to do if not."""

    topic: str
    found: str
    state: State = "good"
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page shows.

    Attributes:
        lines: In reading order.
        canRepair: Whether the repair button can do something about it.
    """

    lines: tuple[Line, ...] = ()
    canRepair: bool = False
    host: Host = field(default_factory=lambda: Host(slicerVersion=""))

    @property
    def problems(self) -> tuple[Line, ...]:
        """What keeps the product from working."""
        return tuple(line for line in self.lines if line.state == "bad")

    @property
    def summary(self) -> str:
        """One line over the table."""
        count = len(self.problems)
        if not count:
            return _("Ready to segment.")
        return (_("{count} problem found.") if count == 1 else _("{count} problems found.")).format(count=count)

    def text(self) -> str:
        """The report to copy into a message, plain and without anybody's name."""
        marks = {"good": "ok  ", "note": "note", "bad": "BAD "}
        width = max((len(line.topic) for line in self.lines), default=0)
        rows = [f"{marks[line.state]} {line.topic.ljust(width)}  {line.found}" for line in self.lines]
        advices = [f"     {line.topic}: {line.advice}" for line in self.lines if line.advice]
        head = f"WholeBodyCSS {__version__}, Slicer {self.host.slicerVersion}, Python {platform.python_version()}"
        body = [head, *rows, *(["to do:", *advices] if advices else [])]
        return "\n".join(hide_user(row) for row in body) + "\n"


def makeReport(diagnosis: Mapping[str, Any], host: Host) -> Report:
    """Combine what the engine found (``wbcss doctor --json``) with what Slicer knows."""
    system, versions = _mapping(diagnosis.get("system")), _mapping(diagnosis.get("versions"))
    lines = [
        *_softwareLines(versions, host),
        _deviceLine(_mapping(diagnosis.get("device")), host),
        *_cardLines(_mapping(diagnosis.get("device"))),
        _memoryLine(system, host.needs),
        _diskLine(system, host.needs),
        *_registryLines(_mapping(diagnosis.get("registry")), diagnosis, host),
    ]
    return Report(lines=tuple(lines), canRepair=bool(host.missing), host=host)


def brokenReport(message: str, host: Host) -> Report:
    """For an engine that cannot even be asked."""
    advice = _("Install the extension again; if that does not help, send this report.")
    lines = [*_softwareLines({}, host), Line(topic=_("Engine"), found=message, state="bad", advice=advice)]
    return Report(lines=tuple(lines), canRepair=bool(host.missing), host=host)


def _softwareLines(versions: Mapping[str, Any], host: Host) -> list[Line]:
    lines = [
        Line(topic="Slicer", found=host.slicerVersion),
        Line(topic="WholeBodyCSS", found=str(versions.get("wbcss") or __version__)),
    ]
    advice = _("Press Repair to install it; nothing is installed without your consent.")
    for name in host.missing:
        title = "PyTorch" if name == "torch" else name
        lines.append(Line(topic=title, found=_("not installed"), state="bad", advice=advice))
    if "torch" not in host.missing and versions.get("torch"):
        lines.append(Line(topic="PyTorch", found=str(versions["torch"])))
    if host.isInterrupted:
        found = _("an installation was begun and not finished")
        lines.append(Line(topic=_("Installation"), found=found, state="note", advice=_("Press Repair to go on.")))
    uses = {"openvino": _("faster on the processor"), "monai": _("to teach new organs"), "highdicom": _("DICOM SEG")}
    absent = [f"{name} ({use})" for name, use in uses.items() if name in versions and not versions[name]]
    if absent:
        found = _("not installed: {names}").format(names=", ".join(absent))
        lines.append(Line(topic=_("Optional"), found=found, state="note"))
    return lines


def _deviceLine(device: Mapping[str, Any], host: Host) -> Line:
    chosen, why = device.get("chosen"), str(device.get("why") or "")
    cards = device.get("cuda_devices") or []
    topic = _("Device")
    if "torch" in host.missing:
        return Line(topic=topic, found=_("unknown until PyTorch is installed"), state="note")
    if not chosen:
        advice = _("Open the module PyTorch Utils, uninstall PyTorch, restart Slicer and press Repair.")
        return Line(topic=topic, found=why or _("unknown"), state="bad", advice=advice)
    if host.device == "cpu":
        return Line(topic=topic, found=_("processor, because you chose it"))
    if host.device.startswith("cuda") and not cards:
        found = _("{device} was chosen, but {why}").format(device=host.device, why=why)
        return Line(topic=topic, found=found, state="bad", advice=_("Choose the device auto in the settings."))
    if host.device.startswith("cuda"):
        return Line(topic=topic, found=_("{device}, because you chose it").format(device=host.device))
    name = _("processor") if chosen == "cpu" else str(chosen)
    text = _("{device}, because {why}").format(device=name, why=why)
    if chosen == "cpu":
        return Line(
            topic=topic, found=text, state="note", advice=_("This works, but takes minutes instead of seconds.")
        )
    return Line(topic=topic, found=text)


def _cardLines(device: Mapping[str, Any]) -> list[Line]:
    lines = []
    for number, card in enumerate(device.get("cuda_devices") or []):
        found = _("{name}, {free} of {total} free").format(
            name=card.get("name"), free=_mib(card.get("memory_free_mib")), total=_mib(card.get("memory_total_mib"))
        )
        lines.append(Line(topic=f"cuda:{number}", found=found))
    return lines


def _memoryLine(system: Mapping[str, Any], needs: Needs | None) -> Line:
    free, total = system.get("memory_available_mib"), system.get("memory_total_mib")
    found = _("{free} of {total} free").format(free=_mib(free), total=_mib(total))
    advice = _("Close other programs, or crop the scan with the module Crop Volume.")
    return _roomLine(_("Memory"), found, free, None if needs is None else needs.memoryMib, advice)


def _diskLine(system: Mapping[str, Any], needs: Needs | None) -> Line:
    free = system.get("temporary_free_mib")
    found = _("{free} free for temporary files").format(free=_mib(free))
    advice = _("Free some space, or choose another temporary folder in Slicer's settings.")
    return _roomLine(_("Disk"), found, free, None if needs is None else needs.diskMib, advice)


def _roomLine(topic: str, found: str, freeMib: object, neededMib: int | None, advice: str) -> Line:
    if neededMib is None:
        return Line(topic=topic, found=found)
    text = _("{found}; the chosen scan needs up to {needed}").format(found=found, needed=_mib(neededMib))
    if isinstance(freeMib, int) and freeMib < neededMib:
        return Line(topic=topic, found=text, state="bad", advice=advice)
    return Line(topic=topic, found=text)


def _registryLines(registry: Mapping[str, Any], diagnosis: Mapping[str, Any], host: Host) -> list[Line]:
    which = _("Your own registry") if host.isOwnRegistry else _("Shipped registry")
    lines = []
    tasks = registry.get("tasks") or []
    if registry.get("sound"):
        found = _("{which}: every file as published; tasks: {tasks}, organs: {organs}").format(
            which=which, tasks=len(tasks), organs=registry.get("organs", 0)
        )
        lines.append(Line(topic=_("Tasks"), found=found, state="good" if tasks else "bad"))
    elif not host.missing:  # else it could not be read, and what is missing is on the list
        for problem in _registryProblems(diagnosis):
            found = f"{which}: {problem.get('what')}"
            remedy = str(problem.get("remedy") or "")
            lines.append(Line(topic=_("Tasks"), found=found, state="bad", advice=remedy[:1].upper() + remedy[1:]))
    if not host.isOwnWritable:
        advice = _("Choose another folder for your own tasks in the application settings.")
        found = _("new tasks cannot be saved: the folder for them cannot be written")
        lines.append(Line(topic=_("Own tasks"), found=found, state="note", advice=advice))
    return lines


def _registryProblems(diagnosis: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The diagnosis lists packages, memory, disk and device as well, which have lines of their own here."""
    others = ("is not installed", "of memory are free", "of disk are free", "torch does not start")
    found = [problem for problem in diagnosis.get("problems") or [] if isinstance(problem, Mapping)]
    found = [problem for problem in found if not any(words in str(problem.get("what")) for words in others)]
    return found or [{"what": _("it could not be checked"), "remedy": _("Look at Slicer's error log.")}]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mib(value: object) -> str:
    if not isinstance(value, (int, float)):
        return _("unknown")
    return _("{size} GB").format(size=f"{value / 1024:.1f}") if value >= 1024 else _("{size} MB").format(size=value)
