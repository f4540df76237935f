"""The tasks of a registry: list, import, export, switch off, retire, update, verify. No Qt, no MRML, no torch.

Cards are read here, which takes milliseconds. Whatever reads weights runs as a ``wbcss tasks`` command in a process of
its own, so that nothing blocks the window and refusals come in the engine's own words.
"""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wbcss.cards import TaskCard
from wbcss.errors import InputError, RunError, WbcssError
from wbcss.labels import TaskId
from wbcss.layout import version_folders
from wbcss.package import SUFFIX, package_name, read_package_card
from wbcss.registry import Registry

from .CardText import cardAsHtml
from .CommandJob import CommandEnd, CommandJob, JobProtocol, Runner
from .RegistryPlaces import RegistryPlaces, ShippedNews
from .Settings import Settings
from .Translation import _

State = Literal["on", "off", "retired", "damaged"]


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task as the list shows it.

    Attributes:
        task: Its name.
        state: Run, switched off by the user, hidden for good, or unreadable.
        card: Newest version; None if it cannot be read.
        sizeBytes: Of its weights; 0 if they are missing.
        update: A newer version that came with the extension.
        problem: Why the card cannot be read.
    """

    task: TaskId
    state: State
    card: TaskCard | None = None
    sizeBytes: int = 0
    update: TaskCard | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the registry in use holds.

    Attributes:
        rows: In the order of publication; damaged ones last.
        problem: Why nothing could be read; empty otherwise.
        notice: What the user should know about the registry as a whole.
    """

    rows: tuple[TaskRow, ...] = ()
    problem: str = ""
    notice: str = ""


@dataclass(frozen=True)
class _Step:
    """A command, and what its end is called when it succeeds."""

    arguments: tuple[str, ...]
    done: Callable[[CommandEnd], str] | None = None


class TaskManager:
    """One action at a time: from its call to exactly one call of ``onDone`` or ``onFailed``; ``poll`` moves it on.

    Attributes:
        onDone: Called with one line for the user.
        onFailed: Called with one line for the user; "" if the user cancelled.
    """

    def __init__(self, places: RegistryPlaces, settings: Settings, runner: Runner = CommandJob) -> None:
        self._places = places
        self._settings = settings
        self._runner = runner
        self._steps: list[_Step] = []
        self._job: JobProtocol | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.activity = ""
        self.onDone: Callable[[str], None] = lambda message: None
        self.onFailed: Callable[[str], None] = lambda message: None

    @property
    def isBusy(self) -> bool:
        """Whether an action runs."""
        return self._job is not None

    @property
    def registry(self) -> Path:
        """Folder of the registry that is shown, which is the one in use."""
        return self._places.inUse

    # Looking

    def listing(self) -> Listing:
        """Read the cards of the registry in use. Never raises: what is wrong is part of the answer."""
        registry = Registry(self.registry)
        try:
            registry.encoder_card()
            retired = set(registry.retired())
            news = self._places.news()
            rows = [self._row(registry, task, max(versions), retired, news) for task, versions in _versions(registry)]
        except (WbcssError, OSError) as error:
            return Listing(problem=_oneLine(error))
        order = {card.task: card.sequence for card in reversed(registry.all_cards())}
        rows.sort(key=lambda row: (row.card is None, order.get(row.task, 0), row.task))
        return Listing(rows=(*rows, *_newTasks(rows, news)), notice=self._notice(news))

    def describe(self, row: TaskRow) -> str:
        """The card of ``row`` in words, as HTML."""
        card = row.card or row.update
        if card is None or row.problem:
            return cardlessText(row)
        try:
            encoder = Registry(self.registry).encoder_card().name
        except WbcssError:
            encoder = _("unknown encoder")
        return cardAsHtml(card, sizeText=sizeText(row.sizeBytes), encoderName=encoder, state=stateText(row))

    def enabledTasks(self) -> tuple[TaskId, ...]:
        """Visible tasks that the user did not switch off: what a segmentation may run."""
        disabled = self._settings.disabledTasks
        return tuple(card.task for card in Registry(self.registry).tasks() if card.task not in disabled)

    # Acting

    def setEnabled(self, task: TaskId, isEnabled: bool) -> None:
        """Switch a task on or off for this user. Nothing is deleted; its organs are just not run."""
        self._settings.setTaskEnabled(task, isEnabled)

    def retire(self, task: TaskId) -> None:
        """Hide all present versions of a task for everybody who uses this registry. Raises WbcssError."""
        self._checkIdle()
        Registry(self._places.writable()).retire(task)

    def importPackage(self, path: Path) -> None:
        """Publish a ``.wbtask`` file in the user's own registry. Raises WbcssError if it is none, before any change."""
        self._checkIdle()
        card = read_package_card(path)
        own = self._places.writable()
        self._start(_("Importing {title} ...").format(title=card.title), [self._import(path, own)])

    def exportTask(self, row: TaskRow, path: Path) -> None:
        """Write a task as a ``.wbtask`` file: at ``path``, or under its own name in the folder ``path``."""
        self._checkIdle()
        if row.card is None:
            raise InputError(f"only a readable task can be exported, got {row.task!r}")
        target = path / package_name(row.card) if path.is_dir() else path
        target = target if target.suffix == SUFFIX else target.with_name(target.name + SUFFIX)
        title = row.card.title
        step = _Step(
            ("tasks", "export", title, "-o", str(target), "--registry", str(self.registry), "--json"),
            lambda end: _("{title} was written to {path}").format(title=title, path=target),
        )
        self._start(_("Exporting {title} ...").format(title=title), [step])

    def update(self, row: TaskRow) -> None:
        """Bring the newer version that came with the extension into the user's own registry, beside the old one."""
        self._checkIdle()
        if row.update is None:
            raise InputError(f"the extension must have a newer version of a task to update it, got {row.task!r}")
        own, title = self._places.writable(), row.update.title
        self._folder = tempfile.TemporaryDirectory(prefix="WholeBodyCSS-update-", ignore_cleanup_errors=True)
        package = Path(self._folder.name) / package_name(row.update)
        shipped = str(self._places.shipped)
        export = _Step(("tasks", "export", title, "-o", str(package), "--registry", shipped, "--json"))
        self._start(_("Updating to {title} ...").format(title=title), [export, self._import(package, own)])

    def verify(self) -> None:
        """Hash every file of the registry in use and compare with the cards."""
        self._checkIdle()
        step = _Step(
            ("tasks", "verify", "--registry", str(self.registry), "--json"),
            lambda end: _("Verified: all {count} files are as they were published.").format(
                count=end.output.get("files", 0)
            ),
        )
        self._start(_("Verifying every file ..."), [step])

    def cancel(self) -> None:
        """Stop what runs; ``onFailed("")`` follows. A half-done import leaves nothing visible."""
        if self._job is not None:
            self._job.cancel()
            self._end()
            self.onFailed("")

    def close(self) -> None:
        """Stop what runs without calling back: for the end of the module."""
        if self._job is not None:
            self._job.cancel()
        self._end()

    def poll(self) -> None:
        """Look whether the running command has ended; start the next one or report."""
        end = None if self._job is None else self._job.poll()
        if end is None:
            return
        step = self._steps.pop(0)
        if not end.isDone:
            self._end()
            self.onFailed(_complaint(end))
        elif self._steps:
            self._next()
        else:
            self._end()
            self.onDone("" if step.done is None else step.done(end))

    # Inside

    def _row(self, registry: Registry, task: TaskId, version: int, retired: set[TaskId], news: ShippedNews) -> TaskRow:
        try:
            card = registry.card(task, version=version)
        except InputError as error:
            return TaskRow(task=task, state="damaged", problem=_oneLine(error), update=news.of(task))
        weights = registry.task_weights(card)
        state: State = "retired" if task in retired else "off" if task in self._settings.disabledTasks else "on"
        size = weights.stat().st_size if weights.is_file() else 0
        return TaskRow(task=task, state=state, card=card, sizeBytes=size, update=news.of(task))

    def _notice(self, news: ShippedNews) -> str:
        if news.isOtherEncoder:
            return _(
                "This version of the extension came with a new model that your own tasks do not fit. You keep working "
                "with your registry. To use the new model choose the shipped registry above; to add organs to it "
                "choose a new, empty folder in the application settings."
            )
        return ""

    def _import(self, path: Path, own: Path) -> _Step:
        return _Step(
            ("tasks", "import", str(path), "--registry", str(own), "--json"),
            lambda end: _("{task}, version {version}, is ready. Organs: {organs}.").format(
                task=end.output.get("task"), version=end.output.get("version"), organs=end.output.get("organs")
            ),
        )

    def _checkIdle(self) -> None:
        if self.isBusy:
            raise RunError(f"one action at a time: wait for it or cancel it, got another while {self.activity!r}")

    def _start(self, activity: str, steps: Sequence[_Step]) -> None:
        self._steps, self.activity = list(steps), activity
        self._next()

    def _next(self) -> None:
        try:
            self._job = self._runner(self._steps[0].arguments)
        except WbcssError:
            self._end()
            raise

    def _end(self) -> None:
        self._steps, self._job, self.activity = [], None, ""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def stateText(row: TaskRow) -> str:
    """The state in a word or two."""
    if row.card is None and row.update is not None:
        return _("not installed")
    if row.state == "on" and row.card is not None and row.card.on_request:
        return _("on request")
    words = {"on": _("in use"), "off": _("switched off"), "retired": _("retired"), "damaged": _("damaged")}
    return words[row.state]


def sizeText(numBytes: int) -> str:
    """As in ``12.6 MB``."""
    if not numBytes:
        return _("unknown")
    if numBytes < 100_000:
        return _("{size} kB").format(size=round(numBytes / 1000))
    return _("{size} MB").format(size=f"{numBytes / 1e6:.1f}")


def cardlessText(row: TaskRow) -> str:
    """What is shown instead of a card that cannot be read."""
    advice = _("Import the task again, or restore the registry from a copy.")
    return f"<h3>{html.escape(row.task)}</h3><p>{html.escape(row.problem)}</p><p>{html.escape(advice)}</p>"


def _versions(registry: Registry) -> list[tuple[TaskId, tuple[int, ...]]]:
    return list(version_folders(registry.root).items())


def _newTasks(rows: Sequence[TaskRow], news: ShippedNews) -> list[TaskRow]:
    """Shipped tasks that the own registry never had."""
    known = {row.task for row in rows}
    return [TaskRow(task=card.task, state="off", update=card) for card in news.updates if card.task not in known]


def _complaint(end: CommandEnd) -> str:
    problems = end.output.get("problems")
    if isinstance(problems, list) and problems:
        count = len(problems)
        text = _("{count} of the registry's files are not as published: {first}")
        return text.format(count=count, first=problems[0]) if count > 1 else str(problems[0])
    return end.message or _("The command failed with code {code}.").format(code=end.exitCode)


def _oneLine(error: Exception) -> str:
    return " ".join(str(error).split())
