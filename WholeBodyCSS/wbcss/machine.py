"""What the computer offers, read without any library: memory, disk, processor."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from pathlib import Path

_MIB = 1 << 20
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_mib() -> tuple[int | None, int | None]:
    """(total, available) main memory in MiB, within the limits of a container; None for what cannot be told."""
    if os.name == "nt":
        return _windows_memory_mib()
    fields = _meminfo_mib()
    total = fields.get("MemTotal")
    if total is None:
        total = _posix_total_mib()
    limit = _container_limit_mib()
    available = fields.get("MemAvailable")
    if limit is not None and (total is None or limit < total):
        return limit, None if available is None else min(available, limit)
    return total, available


def free_disk_mib(folder: Path) -> int | None:
    """Free space in MiB of the disk that holds ``folder`` or its nearest existing parent; None if it cannot be told."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            try:
                return shutil.disk_usage(place).free // _MIB
            except OSError:
                return None
    return None


def processor_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _meminfo_mib() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: int(rest.split()[0]) // 1024 for name, _, rest in pairs if rest.strip().endswith("kB")}


def _posix_total_mib() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB
    except (ValueError, OSError):
        return None


def _container_limit_mib() -> int | None:
    for name in _CGROUP_LIMITS:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) // _MIB if text.isdigit() else None
    return None


def _windows_memory_mib() -> tuple[int | None, int | None]:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "available", "a", "b", "c", "d", "e")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll", None)
    if kernel is None or not kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return status.total // _MIB, status.available // _MIB
