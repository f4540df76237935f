"""One enrolment from the first case to the published task: what is asked of the back end, and where its files lie.

Free of Qt and MRML. The work folder holds everything, and Slicer's settings remember only where it is: a run goes on
when Slicer is closed, and the next Slicer finds it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wbcss.cards import task_card_from_bytes
from wbcss.errors import InputError, OutputError, RunError, WbcssError
from wbcss.io.atomic import write_text
from wbcss.machine import free_disk_mib, memory_mib

from .CardText import cardAsHtml
from .CommandJob import CommandJob, Runner
from .CommandJob import JobProtocol as CommandProtocol
from .DecoderSize import DEFAULT_BUDGET
from .EnrollCases import EnrollCases
from .EnrollOrgan import TaskDraft, asJson, fromJson
from .RunWatcher import RUN, RunState, RunView, RunWatcher
from .Settings import PREFIX, Settings
from .TaskManager import sizeText
from .TrainProcess import DetachedRun, JobEnd, JobProtocol, JobStarter, RunStarter, TrainJob
from .Translation import _

FOLDER_KEY = f"{PREFIX}enrolmentFolder"
PLAN, ORGAN_CARDS, CASES = "wizard.json", "organs.json", "cases"
_MIB = 1 << 20
_FORMAT = "wbcss-wizard"


def defaultBase() -> Path:
    """Where work folders are made when Slicer names no other place."""
    return Path.home() / "WholeBodyCSS" / "enrolments"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run would take, against what the machine has.

    Attributes:
        seconds: By stage.
        diskMib, freeDiskMib: Needed and free; None where the system does not tell.
        memoryMib, freeMemoryMib: Likewise.
        steps: Optimizer steps.
    """

    seconds: Mapping[str, float]
    diskMib: int
    freeDiskMib: int | None
    memoryMib: int
    freeMemoryMib: int | None
    steps: int

    @property
    def totalS(self) -> float:
        """Of the whole run."""
        return sum(self.seconds.values())

    @property
    def problem(self) -> str:
        """Why the run should not be started, in one sentence; "" if nothing speaks against it."""
        if self.freeDiskMib is not None and self.freeDiskMib < self.diskMib:
            return _("{needed} MiB of disk are needed and {free} MiB are free; free some space").format(
                needed=self.diskMib, free=self.freeDiskMib
            )
        if self.freeMemoryMib is not None and self.freeMemoryMib < self.memoryMib:
            return _("{needed} MiB of memory are needed and {free} MiB are free; close other programs").format(
                needed=self.memoryMib, free=self.freeMemoryMib
            )
        return ""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What is asked of the machine; replaced in tests.

    Attributes:
        freeDiskMib: Of the disk that holds a folder.
        freeMemoryMib: Not in use.
        now: For the names of work folders.
    """

    freeDiskMib: Callable[[Path], int | None] = free_disk_mib
    freeMemoryMib: Callable[[], int | None] = lambda: memory_mib()[1]
    now: Callable[[], datetime.datetime] = field(default=datetime.datetime.now)


class EnrollLogic:
    """The enrolment that the wizard is about.

    Args:
        settings: Remembers the work folder; names the device.
        registry: The registry that learns, made if there is none yet; called when a run begins.
        base: Where work folders are made.
        jobs, runs, commands: Start processes; replaced in tests.
        resources: Replaced in tests.

    Attributes:
        cases: What is learned from.
        draft: What is learned.
        minutes: Longest time for the whole run; None for the usual number of steps.
        trimBudget: Share of the full decoder's arithmetic that it is trimmed to; None leaves it at its full size.
        needs: Of the run, None until estimated.
        message: What went wrong last, "" if nothing did.
        exported: The file that the task was written to last.
        onChanged: Called when an estimate has come in.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Callable[[], Path],
        base: Callable[[], Path] = defaultBase,
        jobs: JobStarter = TrainJob,
        runs: RunStarter = DetachedRun,
        commands: Runner = CommandJob,
        resources: Resources | None = None,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._base = base
        self._jobs = jobs
        self._runs = runs
        self._commands = commands
        self._resources = resources or Resources()
        self._folder: Path | None = None
        self._caseArguments: tuple[str, ...] = ()
        self._job: JobProtocol | None = None
        self._export: CommandProtocol | None = None
        self._exportPath: Path | None = None
        self._isCancelled = False
        self.exported: Path | None = None
        self.cases = EnrollCases(jobs)
        self.draft = TaskDraft()
        self.minutes: float | None = None
        self.trimBudget: float | None = DEFAULT_BUDGET
        self.needs: Needs | None = None
        self.watcher: RunWatcher | None = None
        self.message = ""
        self.onChanged: Callable[[], None] = lambda: None
        self._find()

    # The work folder

    @property
    def folder(self) -> Path:
        """Of this enrolment; made when it is first asked for. Raises OutputError."""
        if self._folder is None:
            name = self._resources.now().strftime("%Y%m%d-%H%M%S")
            folder = self._base() / name
            try:
                folder.mkdir(parents=True, exist_ok=False)
            except OSError as error:
                raise OutputError(
                    f"cannot make the work folder {folder}: {error.strerror or error}; choose another place"
                ) from error
            self._folder = folder
        return self._folder

    @property
    def view(self) -> RunView:
        """Where the run stood when ``poll`` last looked."""
        return RunView() if self.watcher is None else self.watcher.view

    def casesFolder(self) -> Path:
        """An empty folder for cases out of the scene. Raises OutputError."""
        folder = self.folder / CASES
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    @property
    def publishedTitle(self) -> str:
        """Task and version that are published, or would be, as ``liver@2``."""
        return "" if self.watcher is None else str(self.watcher.report.get("task", ""))

    @property
    def isExporting(self) -> bool:
        """Whether the file of the task is being written."""
        return self._export is not None

    def cardHtml(self) -> str:
        """The card of the learned task as a small page; "" before there is one."""
        path = None if self.watcher is None else self.watcher.card
        if self.watcher is None or path is None:
            return ""
        isPublished = self.view.state == RunState.PUBLISHED
        state = _("published") if isPublished else _("proven, not yet published")
        try:
            card = task_card_from_bytes(path.read_bytes(), source=path.name)
            weights = self.watcher.weights(card.weights_sha256)
            size = 0 if weights is None else weights.stat().st_size
        except (OSError, WbcssError):
            return ""
        return cardAsHtml(card, sizeText=sizeText(size), encoderName=card.encoder_sha256[:12], state=state)

    # Before the run

    @property
    def isEstimating(self) -> bool:
        """Whether the estimate is being made."""
        return self._job is not None

    def takeOrgans(self) -> None:
        """Let the draft follow the organs of the cases."""
        self.draft = self.draft.withOrgans({row.organ: row.name for row in self.cases.learned})

    def estimate(self) -> None:
        """Measure what the run would cost; ``poll`` takes it up. Raises InputError, RunError, OutputError."""
        self.stopJob()
        self.needs, self.message = None, ""
        self._caseArguments = self.cases.arguments() or self._caseArguments
        self._job = self._jobs((*self._arguments(), "--dry-run"))

    def poll(self) -> None:
        """Take up what background jobs have said, and how far the run is."""
        self.cases.poll()
        if self.watcher is not None:
            self.watcher.look()
        end = None if self._job is None else self._job.poll()
        if end is not None:
            self._job = None
            self._estimated(end)
            self.onChanged()
        done = None if self._export is None else self._export.poll()
        if done is not None:
            self._export = None
            self.exported = self._exportPath if done.isDone else None
            self.message = "" if done.isDone else done.message
        self._dropIfStopped()

    def stopJob(self) -> None:
        """Drop an estimate that is being made."""
        if self._job is not None:
            self._job.cancel()
        self._job = None

    def close(self) -> None:
        """Stop what ends with Slicer; the run itself goes on."""
        self.stopJob()
        self.cases.close()

    # The run

    def start(self) -> None:
        """Begin the run and remember it. Raises InputError, RunError, OutputError."""
        self.stopJob()
        if self.cases.learned:
            self._caseArguments = self.cases.arguments()
        self._savePlan()
        self._settings.store.setValue(FOLDER_KEY, str(self.folder))
        self._launch("--no-publish")

    def resume(self) -> None:
        """Go on with a paused, interrupted or failed run. Raises InputError, RunError, OutputError."""
        self._launch("--no-publish")

    def publish(self) -> None:
        """Make the proven task visible. Raises InputError, RunError, OutputError."""
        self._savePlan()
        self._launch()

    def pause(self) -> None:
        """Stop at the next checkpoint. Raises OutputError."""
        if self.watcher is not None:
            self.watcher.pause()

    def cancelRun(self) -> None:
        """Stop the run if it works and drop it, its cases kept; ``poll`` deletes it once it has stopped.

        Raises OutputError if the wish cannot be written or the folder cannot be deleted.
        """
        self._isCancelled = True
        if self.watcher is not None and self.view.isWorking:
            self.watcher.pause()
            self.watcher.kill()
        self._dropIfStopped()

    def export(self, path: Path) -> None:
        """Write the published task as one file; ``poll`` takes it up. Raises RunError."""
        self.message, self.exported = "", None
        self._exportPath = path
        task = ["tasks", "export", self.publishedTitle, "--registry", str(self._registry()), "-o", str(path)]
        self._export = self._commands(task)

    def discard(self) -> None:
        """Delete the run, its work folder and the memory of it. Raises OutputError while it works."""
        self.close()
        if self.watcher is not None:
            self.watcher.discard()
        elif self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self.forget()

    def forget(self) -> None:
        """Begin with a new enrolment; files of the old one stay."""
        self.close()
        self._settings.store.remove(FOLDER_KEY)
        self._folder, self.watcher, self.needs, self.message = None, None, None, ""
        self._isCancelled, self.exported = False, None
        self._caseArguments = ()
        self.cases, self.draft = EnrollCases(self._jobs), TaskDraft()
        self.minutes, self.trimBudget = None, DEFAULT_BUDGET

    # Inside

    def _dropIfStopped(self) -> None:
        if not self._isCancelled or self.watcher is None or self.view.isWorking:
            return
        self._isCancelled = False
        self.watcher.dropRun()
        self.watcher = None
        self._settings.store.remove(FOLDER_KEY)

    def _arguments(self) -> tuple[str, ...]:
        if not self._caseArguments:
            raise InputError(_("choose cases first"))
        cards = self.draft.organCards()
        words = ["enroll", *self._caseArguments, *self.draft.arguments()]
        words += ["--registry", str(self._registry()), "--run", str(self.folder / RUN)]
        words += ["--device", self._settings.device, "--json"]
        if cards:
            path = self.folder / ORGAN_CARDS
            write_text(path, json.dumps(cards, indent=1) + "\n")
            words += ["--organ-cards", str(path)]
        if self.minutes is not None:
            words += ["--minutes", f"{self.minutes:g}"]
        words += ["--no-trim"] if self.trimBudget is None else ["--trim-budget", f"{self.trimBudget:g}"]
        return tuple(words)

    def _launch(self, *options: str) -> None:
        if self.view.isWorking:
            raise RunError(_("the run is working already"))
        process = self._runs((*self._arguments(), "--resume", *options), self.folder)
        if self.watcher is None:
            self.watcher = RunWatcher(self.folder)
        self.watcher.started(process)

    def _estimated(self, end: JobEnd) -> None:
        facts = next((line for line in end.lines if "estimate_s" in line), None)
        if facts is None:
            self.message = end.message
            return
        self.needs = Needs(
            seconds={str(stage): float(spent) for stage, spent in facts["estimate_s"].items()},
            diskMib=-(-int(facts["disk_bytes"]) // _MIB),
            freeDiskMib=self._resources.freeDiskMib(self.folder),
            memoryMib=-(-int(facts["memory_bytes"]) // _MIB),
            freeMemoryMib=self._resources.freeMemoryMib(),
            steps=int(facts["steps"]),
        )

    def _savePlan(self) -> None:
        plan = {
            "format": _FORMAT,
            "format_version": 1,
            "cases": list(self._caseArguments),
            "minutes": self.minutes,
            "trim_budget": self.trimBudget,
            "draft": asJson(self.draft),
        }
        write_text(self.folder / PLAN, json.dumps(plan, indent=1) + "\n")

    def _find(self) -> None:
        """Take up the enrolment that an earlier Slicer left."""
        text = self._settings.store.value(FOLDER_KEY, "")
        folder = Path(text) if isinstance(text, str) and text else None
        if folder is None or not (folder / PLAN).is_file():
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            # A plan of an earlier version has no budget: its run was begun with what the back end took by itself.
            minutes, budget = plan["minutes"], plan.get("trim_budget", DEFAULT_BUDGET)
            self.draft = fromJson(plan["draft"])
            self._caseArguments = tuple(map(str, plan["cases"]))
            self.minutes = None if minutes is None else float(minutes)
            self.trimBudget = None if budget is None else float(budget)
            self._folder, self.watcher = folder, RunWatcher(folder)
