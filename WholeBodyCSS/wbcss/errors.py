"""Every error raised on purpose, each with the exit code that a command line answers with."""

from __future__ import annotations

from typing import ClassVar

EXIT_DONE = 0
EXIT_INPUT = 2
EXIT_FAILED = 3
EXIT_CANCELLED = 130


class WbcssError(Exception):
    """Base of all errors raised deliberately. The message is one line: what was expected, what came, what to do."""

    exit_code: ClassVar[int] = EXIT_FAILED


class InputError(WbcssError, ValueError):
    """Something the user gave cannot be used; nothing was written."""

    exit_code: ClassVar[int] = EXIT_INPUT


class GeometryError(InputError):
    """An image, affine or spacing cannot be used as given."""


class VolumeFileError(InputError):
    """A file or folder does not hold a volume that can be read."""


class OutputError(InputError):
    """The output cannot be written where it was asked for (permission, missing folder, full disk, unknown suffix)."""


class LabelSpaceError(InputError):
    """Organ names or label values collide, are missing, or do not map."""


class SpecError(InputError):
    """A network or run description is inconsistent."""


class RegistryError(InputError):
    """A task is missing from the registry, or its files do not match its card."""


class CaseError(InputError):
    """A training case cannot be used: its folder layout, image or labels are wrong."""


class ProtocolError(WbcssError, ValueError):
    """A message between the host and the worker is malformed."""


class DeviceError(WbcssError):
    """The asked device is missing or ran out of memory at every step of the ladder."""


class RunError(WbcssError):
    """A training run cannot start, continue or finish."""


class Cancelled(WbcssError):
    """The caller asked the running operation to stop; nothing half-written remains."""

    exit_code: ClassVar[int] = EXIT_CANCELLED
