"""One-line JSON messages between a host (3D Slicer, a script, a test) and ``python -m wbcss.worker``.

The host writes requests to the worker's standard input and reads replies from its standard output. A message is one
line of ASCII JSON (other characters are escaped, so the locale of a pipe cannot spoil a path), at most
``MAX_LINE_BYTES`` long, holding ``"protocol": 1``, its ``"type"`` and the fields of the class of that type below.
Fields with a default may be left out; an unknown type, an unknown field, a missing field or a wrong value is a
ProtocolError that names it, which the worker answers with an ``error`` message: it never dies of one.

==================  ==========================================================================================
request             answered by
==================  ==========================================================================================
``hello``           ``hello_reply``, at once and without loading the network library
``doctor``          ``doctor_reply``: versions, device, memory, registry health
``list_organs``     ``organs``: what the registry can segment
``segment``         any number of ``progress``, then exactly one ``result`` or ``error``; ``error`` of kind ``busy``
                    if another segmentation is running
``cancel``          ``cancelling`` within a second; the segmentation itself then ends with ``error``, kind
                    ``cancelled``
``shutdown``        ``goodbye``; a running segmentation is cancelled first. The end of the input means the same
==================  ==========================================================================================

``wbcss segment --json`` prints the same ``progress``, ``result`` and ``error`` lines, one number as ``id`` per input,
and ``batch`` at the end of several.

``id`` is the host's own name for a request and comes back in every reply to it. Paths are absolute. Voxels never
travel in a message: they lie in a file that an ``ArrayFile`` describes (see ``arrayfile``). Lengths are millimeters,
fractions are in [0, 1], affines map ijk to RAS mm.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Union

from .arrayfile import ArrayFile
from .errors import EXIT_CANCELLED, EXIT_FAILED, EXIT_INPUT, ProtocolError, WbcssError
from .jsontypes import build, plain, shown

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 1 << 20
_ID = re.compile(r"[A-Za-z0-9_.:-]{0,64}")

Quality = Literal["fast", "normal", "best"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """What every message has: an ``id`` that ties a reply to its request ('' when the host gave none)."""

    type: ClassVar[str]
    id: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ProtocolError(f"id must be at most 64 of A-Z, a-z, 0-9, _, ., : and -, got {shown(self.id)}")


@dataclass(frozen=True, kw_only=True)
class Hello(Message):
    """Is anybody there, and which version?"""

    type: ClassVar[str] = "hello"


@dataclass(frozen=True, kw_only=True)
class HelloReply(Message):
    """The worker's version and process id; ``busy`` says whether a segmentation is running."""

    type: ClassVar[str] = "hello_reply"
    version: str
    pid: int
    busy: bool = False


@dataclass(frozen=True, kw_only=True)
class DoctorRequest(Message):
    """Ask for the state of the installation. ``registry`` None means the shipped one."""

    type: ClassVar[str] = "doctor"
    registry: str | None = None


@dataclass(frozen=True, kw_only=True)
class DoctorReply(Message):
    """``diagnosis`` is what ``wbcss doctor --json`` prints."""

    type: ClassVar[str] = "doctor_reply"
    diagnosis: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ListOrgans(Message):
    """Ask what a registry can segment."""

    type: ClassVar[str] = "list_organs"
    registry: str | None = None


@dataclass(frozen=True, kw_only=True)
class OrganItem:
    """An organ of the registry: its label value, how to show and find it, and the tasks that segment it.

    ``on_request`` are those of ``tasks`` that do not run unless somebody asks.
    """

    name: str
    label: int
    display_name: str
    group: str
    color_rgb: tuple[int, int, int]
    terminology: str
    tasks: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        """The tasks that run for somebody who names this organ: those on request only where no other knows it."""
        usual = tuple(task for task in self.tasks if task not in self.on_request)
        return usual or self.tasks

    @property
    def is_on_request(self) -> bool:
        """Whether it is segmented only for somebody who names it or its task."""
        return bool(self.tasks) and set(self.tasks) <= set(self.on_request)


@dataclass(frozen=True, kw_only=True)
class Organs(Message):
    """Answer to ``list_organs``, in registry order."""

    type: ClassVar[str] = "organs"
    organs: tuple[OrganItem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SegmentRequest(Message):
    """Segment one volume.

    Attributes:
        input: Absolute path of a file or DICOM folder, or voxels in a shared file (HU, int16 or float32).
        output: Absolute path of the labels: ``.seg.nrrd``, ``.nii.gz``, or ``.npy`` for voxels in a shared file.
            The other files lie beside it and share its name.
        organs: Organs wanted; None means all of ``tasks``. Decoders that are not needed are not run.
        tasks: Tasks that may run; None means all of the registry but those that run on request, which take part if
            ``organs`` names one that no other task knows.
        series: DICOM series UID when the folder holds several.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        quality: How far tiles overlap: ``fast``, ``normal`` or ``best``.
        resume: Do nothing if the outputs are there already, made from this input by this model and these options.
    """

    type: ClassVar[str] = "segment"
    input: str | ArrayFile
    output: str
    registry: str | None = None
    organs: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    series: str | None = None
    device: str = "auto"
    quality: Quality = "normal"
    threads: int | None = None
    statistics: bool = False
    preview: bool = False
    confidence: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.id:
            raise ProtocolError("a segment message needs an id, got none")
        for name, path in (("input", self.input), ("output", self.output), ("registry", self.registry)):
            if isinstance(path, str) and not Path(path).is_absolute():
                raise ProtocolError(f"{name} must be an absolute path, got {shown(path)}")
        if self.threads is not None and self.threads < 1:
            raise ProtocolError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, kw_only=True)
class Progress(Message):
    """How far the segmentation is; ``remaining_s`` None until it can be told."""

    type: ClassVar[str] = "progress"
    fraction: float
    stage: str
    remaining_s: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fraction <= 1:
            raise ProtocolError(f"fraction must be in [0, 1], got {self.fraction}")


@dataclass(frozen=True, kw_only=True)
class OrganCheck:
    """A reason to look at an organ: a name for machines, a clause for a person, and where (None: no such place)."""

    flag: str
    reason: str
    place_ras_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class OrganRow:
    """One line of the organ table. What does not exist is None: densities and center of an organ without voxels ...

    ``checks`` says more about ``flags``, in their order; ``lesion_ml`` is the volume of the lesions that lie in it.
    """

    organ: str
    label: int
    voxels: int
    volume_ml: float
    mean_hu: float | None = None
    sd_hu: float | None = None
    mean_confidence: float | None = None
    center_ras_mm: tuple[float, float, float] | None = None
    dice: float | None = None
    flags: tuple[str, ...] = ()
    checks: tuple[OrganCheck, ...] = ()
    lesion_ml: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Result(Message):
    """The segmentation is on disk.

    Attributes:
        files: Kind (``labels``, ``report``, ``statistics`` ...) to absolute path.
        labels: Set when the labels were asked for as a shared file.
        organs: The organ table, in label order.
        warnings: What the user should know: steps of the memory ladder, odd slices in the input ...
        seconds: Wall time of the whole job.
        skipped: Nothing was done because ``resume`` found the outputs there; ``organs`` is empty then.
    """

    type: ClassVar[str] = "result"
    files: Mapping[str, str]
    labels: ArrayFile | None = None
    organs: tuple[OrganRow, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class ErrorReply(Message):
    """A request was refused or failed. ``exit_code`` is what the command line would have answered."""

    type: ClassVar[str] = "error"
    kind: str
    message: str
    exit_code: int = EXIT_FAILED

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exit_code not in (EXIT_INPUT, EXIT_FAILED, EXIT_CANCELLED):
            raise ProtocolError(f"exit_code must be 2, 3 or 130, got {self.exit_code}")


@dataclass(frozen=True, kw_only=True)
class Cancel(Message):
    """Stop the running segmentation; with an id, only if it is the one running."""

    type: ClassVar[str] = "cancel"


@dataclass(frozen=True, kw_only=True)
class Cancelling(Message):
    """Answer to ``cancel``: ``running`` says whether there was anything to stop."""

    type: ClassVar[str] = "cancelling"
    running: bool


@dataclass(frozen=True, kw_only=True)
class BatchDone(Message):
    """Last line of ``wbcss segment --json`` for several inputs: how many there were, were done before, and failed."""

    type: ClassVar[str] = "batch"
    total: int
    skipped: int = 0
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class Shutdown(Message):
    """Cancel what runs and exit."""

    type: ClassVar[str] = "shutdown"


@dataclass(frozen=True, kw_only=True)
class Goodbye(Message):
    """The last message of a worker that was asked to exit."""

    type: ClassVar[str] = "goodbye"


Request = Union[Hello, DoctorRequest, ListOrgans, SegmentRequest, Cancel, Shutdown]  # noqa: UP007 -- 3.10 get_args
Reply = Union[  # noqa: UP007
    HelloReply, DoctorReply, Organs, Progress, Result, ErrorReply, Cancelling, Goodbye, BatchDone
]
_REQUESTS: Mapping[str, Any] = {kind.type: kind for kind in typing.get_args(Request)}
_REPLIES: Mapping[str, Any] = {kind.type: kind for kind in typing.get_args(Reply)}


def encode(message: Message) -> str:
    """``message`` as one line of ASCII JSON ending in a newline. Raises ProtocolError if it cannot be sent."""
    body = {"protocol": PROTOCOL_VERSION, "type": message.type, **plain(message)}
    try:
        line = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(", ", ": "))
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"a {message.type} message must hold plain finite JSON values: {error}") from error
    if len(line) >= MAX_LINE_BYTES:
        raise ProtocolError(f"a message may be {MAX_LINE_BYTES} bytes long, this {message.type} has {len(line)}")
    return line + "\n"


def parse_request(line: str | bytes) -> Request:
    """Read what a host sent. Raises ProtocolError saying what was wrong."""
    request: Request = parse_message(line, _REQUESTS)
    return request


def parse_reply(line: str | bytes) -> Reply:
    """Read what a worker sent. Raises ProtocolError saying what was wrong."""
    reply: Reply = parse_message(line, _REPLIES)
    return reply


def id_of(line: str | bytes) -> str:
    """The id of a message that may be malformed, so that the complaint about it can be tied to it; '' if none."""
    try:
        found = _object(line).get("id", "")
    except ProtocolError:
        return ""
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def error_reply(error: BaseException, message_id: str = "") -> ErrorReply:
    """Describe ``error`` to the host: its kind is the error class in snake_case without "Error"."""
    if isinstance(error, WbcssError):
        words = re.findall(r"[A-Z][a-z]*", type(error).__name__.removesuffix("Error"))
        kind, code, text = "_".join(words).lower(), error.exit_code, str(error)
    elif isinstance(error, ImportError):
        kind, code = "missing_package", EXIT_FAILED
        text = f"a package is missing or broken: {error}; `wbcss doctor`, in Slicer the page Doctor, says what to do"
    else:
        kind, code, text = "unexpected", EXIT_FAILED, f"unexpected {type(error).__name__}: {error}"
    return ErrorReply(id=message_id, kind=kind, message=" ".join(text.split()), exit_code=code)


def parse_message(line: str | bytes, kinds: Mapping[str, Any]) -> Any:
    """Read a message of one of ``kinds`` (type to class). Raises ProtocolError saying what was wrong."""
    values = _object(line)
    version = values.pop("protocol", None)
    if version != PROTOCOL_VERSION or isinstance(version, bool):
        raise ProtocolError(f'a message must hold "protocol": {PROTOCOL_VERSION}, got {shown(version)}')
    name = values.pop("type", None)
    if not isinstance(name, str) or name not in kinds:
        raise ProtocolError(f"type must be one of {', '.join(kinds)}, got {shown(name)}")
    return build(kinds[name], values, where=name)


def _object(line: str | bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(f"a message may be {MAX_LINE_BYTES} bytes long, got {len(line)}")
    try:
        text = line.decode("utf-8") if isinstance(line, bytes) else line
        values = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"a message must be UTF-8 text: {error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError(f"a message must be one line of JSON, got {shown(line)}: {error}") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"a message must be a JSON object, got {shown(values)}")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ProtocolError(f"a message may hold each field once, got {shown(name)} twice")
        values[name] = value
    return values


def _refuse_constant(text: str) -> float:
    raise ProtocolError(f"numbers must be finite, got {text}")
