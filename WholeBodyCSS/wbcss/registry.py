"""Published tasks on disk: one folder per version, a card in JSON, weights in safetensors. No torch.

Layout::

    encoder/card.json  encoder/encoder.safetensors          the one frozen encoder
    tasks/NAME/VERSION/card.json  .../decoder.safetensors   immutable once there
    tasks/NAME/retired.json                                 hides versions up to a number
    labels.json                                             every label value ever given away
    .lock  .staging-PID-RANDOM                              the lock of writers, and what they prepare
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from . import auditing, ledger, storage, weights
from .cards import (
    EncoderCard,
    TaskCard,
    encoder_card_from_bytes,
    encoder_card_to_bytes,
    task_card_from_bytes,
    task_card_to_bytes,
)
from .catalogue import Organ
from .errors import RegistryError
from .evidencefile import stage_evidence
from .labels import LabelSpace, OrganName, TaskId
from .layout import CARD, DECODER, ENCODER, ENCODER_DIR, EVIDENCE, RETIRED, TASKS_DIR, version_folders
from .resources import starter_registry
from .schemas import dump_document, read_document

REGISTRY_VARIABLE = "WBCSS_REGISTRY"

_log = logging.getLogger(__name__)
_AnyCard = TypeVar("_AnyCard", EncoderCard, TaskCard)


def default_registry_path() -> Path:
    """The folder named by the environment variable WBCSS_REGISTRY, else the registry that ships with the product."""
    named = os.environ.get(REGISTRY_VARIABLE)
    return Path(named) if named else starter_registry()


@dataclass(frozen=True, kw_only=True)
class StagedTask:
    """A finished training result that is not yet visible to anyone.

    Attributes:
        card: ``weights_sha256`` may be empty and ``version`` 0: publishing fills them in.
        weights: A safetensors file as ``loading.save_weights`` writes it; it is copied.
        evidence: Likewise, of ``loading.save_evidence``; or None.
    """

    card: TaskCard
    weights: Path
    evidence: Path | None = None


@dataclass(frozen=True, kw_only=True)
class StagedEncoder:
    """A trained encoder that no registry holds yet. ``weights_sha256`` of the card may be empty."""

    card: EncoderCard
    weights: Path


class Registry:
    """Read and publish tasks. Opening a registry never imports torch, never reads weights and changes nothing.

    Several processes may read and publish at once: readers see whole versions only, writers wait for each other.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._cards: dict[Path, tuple[tuple[int, int], EncoderCard | TaskCard]] = {}

    # Reading

    def encoder_card(self) -> EncoderCard:
        """Card of the encoder. Raises RegistryError if there is none or it cannot be read."""
        path = self.root / ENCODER_DIR / CARD
        if not path.is_file():
            raise RegistryError(
                f"no encoder is published in the registry {self.root}; name another registry with --registry or "
                f"{REGISTRY_VARIABLE}, or publish an encoder there first"
            )
        return self._read(path, encoder_card_from_bytes)

    def encoder_weights(self) -> Path:
        """Path of the encoder's weights."""
        return self.root / ENCODER_DIR / ENCODER

    def task_weights(self, card: TaskCard) -> Path:
        """Path of the weights of a published version."""
        return self._folder(card.task, card.version) / DECODER

    def task_evidence(self, card: TaskCard) -> Path:
        """Path of the evidence of a published version; it is there if the card has ``evidence_sha256``."""
        return self._folder(card.task, card.version) / EVIDENCE

    def tasks(self) -> tuple[TaskCard, ...]:
        """Newest visible version of every task, in the order in which the tasks were first published.

        A task whose newest card cannot be read is left out with a warning; ``verify`` says what is wrong with it.
        """
        found: list[tuple[int, TaskCard]] = []
        for task, versions in version_folders(self.root).items():
            hidden = self._retired_through(task)
            if max(versions) <= hidden:
                continue
            cards = {version: self._readable_card(task, version) for version in versions}
            newest = cards[max(versions)]
            if newest is not None:
                found.append((min(card.sequence for card in cards.values() if card), newest))
        return tuple(card for _, card in sorted(found, key=lambda item: (item[0], item[1].task)))

    def card(self, task: TaskId, *, version: int | None = None) -> TaskCard:
        """Card of the newest visible version of ``task``, or of ``version`` even if it is retired.

        Raises RegistryError naming the known tasks or versions if it is missing.
        """
        versions = version_folders(self.root).get(task)
        if not versions:
            raise RegistryError(f"no task {task!r} in the registry {self.root}; {self._known_tasks()}")
        if version is None:
            version = max(versions)
            if version <= self._retired_through(task):
                raise RegistryError(f"task {task!r} is retired in the registry {self.root}; {self._known_tasks()}")
        if version not in versions:
            known = ", ".join(map(str, versions))
            raise RegistryError(f"task {task!r} has no version {version} in the registry {self.root}; it has {known}")
        return self._task_card(task, version)

    def versions(self, task: TaskId) -> tuple[int, ...]:
        """All published versions of ``task``, retired ones too, ascending; empty if it is unknown."""
        return version_folders(self.root).get(task, ())

    def all_cards(self) -> tuple[TaskCard, ...]:
        """Every readable card of every version, retired ones too, in the order of publication."""
        folders = version_folders(self.root)
        cards = [self._readable_card(task, version) for task, versions in folders.items() for version in versions]
        return tuple(sorted((card for card in cards if card is not None), key=lambda card: card.sequence))

    def retired(self) -> tuple[TaskId, ...]:
        """Tasks of which no version is visible, by name."""
        folders = version_folders(self.root)
        return tuple(task for task, versions in folders.items() if max(versions) <= self._retired_through(task))

    def organs(self) -> tuple[Organ, ...]:
        """Every organ that a visible task segments, once, in the order of publication and of channels."""
        union: dict[OrganName, Organ] = {}
        for card in self.tasks():
            for organ in card.organs:
                union.setdefault(organ.name, organ)
        return tuple(union.values())

    def label_space(self, tasks: Iterable[TaskId] | None = None) -> LabelSpace:
        """Union of the label spaces of ``tasks`` (default: all visible ones)."""
        cards = self.tasks() if tasks is None else [self.card(task) for task in tasks]
        return LabelSpace({organ.name: organ.label for card in cards for organ in card.organs})

    def label_owners(self) -> Mapping[int, OrganName]:
        """Every label value that is taken: by the catalogue, by any version of any task, or by a reservation."""
        owners = ledger.catalogue_owners() | ledger.read_ledger(self.root)
        for card in self.all_cards():
            for organ in card.organs:
                owners.setdefault(organ.label, organ.name)
        return owners

    # Writing

    def publish_encoder(self, staged: StagedEncoder) -> EncoderCard:
        """Give the registry its encoder. It is frozen from then on: a second one is refused.

        Raises:
            RegistryError: there is an encoder already, or weights and card do not match.
            OutputError: the registry cannot be written.
        """
        with self._writing(), _open_weights(staged.weights) as stream:
            target = self.root / ENCODER_DIR
            if target.exists():
                raise RegistryError(
                    f"the registry {self.root} already has an encoder, and its tasks depend on it; make a new registry "
                    f"for the encoder {staged.card.name!r}"
                )
            with self._staging() as folder:
                sha256 = self._stage_weights(folder / ENCODER, stream, promised=staged.card.weights_sha256)
                weights.check_shapes(
                    weights.read_header(folder / ENCODER), weights.encoder_shapes(staged.card.spec), source=ENCODER
                )
                card = dataclasses.replace(staged.card, weights_sha256=sha256)
                self._make_visible(folder, encoder_card_to_bytes(card), ENCODER, sha256, target)
        return self.encoder_card()

    def publish(self, staged: StagedTask) -> TaskCard:
        """Make a staged task visible in one rename. Never overwrites a version.

        Raises:
            RegistryError: no encoder or another one, version there already, label value of another organ, or weights
                that do not match the card. Nothing was published.
            OutputError: the registry cannot be written. Nothing was published.
        """
        extra = contextlib.nullcontext() if staged.evidence is None else _open_weights(staged.evidence)
        with _open_weights(staged.weights) as stream, extra as evidence:
            return self.publish_stream(staged.card, stream, evidence)

    def publish_stream(self, card: TaskCard, stream: BinaryIO, evidence: BinaryIO | None = None) -> TaskCard:
        """``publish`` with weights and evidence that come from open binary streams."""
        with self._writing():
            encoder = self.encoder_card()
            owners = self.label_owners()
            card = self._numbered(card)
            self.check_publishable(card)
            target = self._folder(card.task, card.version)
            with self._staging() as folder:
                sha256 = self._stage_weights(folder / DECODER, stream, promised=card.weights_sha256)
                auditing.check_decoder(folder / DECODER, card, encoder)
                card = dataclasses.replace(card, weights_sha256=sha256)
                card = stage_evidence(folder, card, evidence)
                storage.make_folder(target.parent.parent)
                storage.make_folder(target.parent)
                # The values are on record before the task shows: a crash in between costs a number, nothing else.
                ledger.write_ledger(self.root, {**owners, **{organ.label: organ.name for organ in card.organs}})
                self._make_visible(folder, task_card_to_bytes(card), DECODER, sha256, target)
        return self.card(card.task, version=card.version)

    def check_publishable(self, card: TaskCard) -> None:
        """Raise RegistryError if ``card`` cannot be published here: encoder, version or label values forbid it."""
        encoder = self.encoder_card()
        if card.encoder_sha256 != encoder.weights_sha256:
            raise RegistryError(
                f"task {card.task!r} was made for the encoder {card.encoder_sha256[:12]}..., but the registry "
                f"{self.root} has {encoder.weights_sha256[:12]}... ({encoder.name}); it cannot work here"
            )
        if card.version in self.versions(card.task):
            raise RegistryError(
                f"{card.title} is already published in the registry {self.root} and cannot change; publish it as "
                f"version {max(self.versions(card.task)) + 1}"
            )
        ledger.check_claims(card.organs, self.label_owners(), task=card.task)

    def allocate_labels(self, names: Iterable[OrganName]) -> Mapping[OrganName, int]:
        """Label values for organs, kept for them for good even if nothing is ever published.

        Catalogue organs and organs that have a value here keep it; others get 10000 and up.
        """
        with self._writing():
            owners = dict(self.label_owners())
            allocated = ledger.allocate(names, owners)
            ledger.write_ledger(self.root, owners | {label: name for name, label in allocated.items()})
        return allocated

    def retire(self, task: TaskId) -> None:
        """Hide all present versions of ``task``. Files and label values stay; a later version shows again.

        Raises RegistryError if the task is unknown or retired already.
        """
        with self._writing():
            card = self.card(task)
            values = {
                "format": "wbcss-retirement",
                "format_version": 1,
                "through_version": card.version,
                "retired": datetime.date.today().isoformat(),
            }
            path = self.root / TASKS_DIR / task / RETIRED
            storage.replace_file(path, dump_document(values, name=RETIRED), staging_root=self.root)

    # Checking

    def verify(self) -> list[str]:
        """One sentence per broken file; empty when every card and weight file is what was published."""
        return auditing.find_problems(self.root)

    def notes(self) -> list[str]:
        """One sentence per harmless leftover, such as the staging folder of a publication that was killed."""
        return auditing.find_notes(self.root)

    def fingerprint(self) -> Mapping[str, str]:
        """SHA-256 of every published file by its path relative to the registry, with forward slashes.

        Published files are those of the encoder and of every version of every task: the ones that never change.
        """
        return auditing.fingerprint(self.root)

    # Inside

    def _folder(self, task: TaskId, version: int) -> Path:
        return self.root / TASKS_DIR / task / str(version)

    def _known_tasks(self) -> str:
        names = [card.task for card in self.tasks()]
        return f"published tasks are {', '.join(names)}" if names else "nothing is published there"

    def _read(self, path: Path, parse: Callable[..., _AnyCard]) -> _AnyCard:
        """Read a card once; it is read again only if the file is another one."""
        source = path.relative_to(self.root).as_posix()
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            known = self._cards.get(path)
            if known is None or known[0] != stamp:
                known = (stamp, parse(path.read_bytes(), source=source))
                self._cards[path] = known
        except OSError as error:
            raise RegistryError(f"{source} cannot be read: {error.strerror or error}") from error
        card: _AnyCard = known[1]  # type: ignore[assignment]
        return card

    def _task_card(self, task: TaskId, version: int) -> TaskCard:
        path = self._folder(task, version) / CARD
        card = self._read(path, task_card_from_bytes)
        auditing.check_place(card, task, version)
        return card

    def _readable_card(self, task: TaskId, version: int) -> TaskCard | None:
        try:
            return self._task_card(task, version)
        except RegistryError as error:
            _log.warning("task %s version %d is left out: %s", task, version, error)
            return None

    def _retired_through(self, task: TaskId) -> int:
        """Versions up to this one are hidden. A marker that cannot be read hides all: better too little than wrong."""
        path = self.root / TASKS_DIR / task / RETIRED
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError:
            return max(self.versions(task), default=0)
        try:
            values = read_document(data, schema="retirement", source=f"{TASKS_DIR}/{task}/{RETIRED}")
        except RegistryError as error:
            _log.warning("task %s is hidden: %s", task, error)
            return max(self.versions(task), default=0)
        return int(values["through_version"])

    def _numbered(self, card: TaskCard) -> TaskCard:
        version = card.version or max(self.versions(card.task), default=0) + 1
        sequence = 1 + max((other.sequence for other in self.all_cards()), default=0)
        return dataclasses.replace(card, version=version, sequence=sequence)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock and clear away what dead writers left."""
        with storage.writing_reported(self.root):
            for folder in (*reversed(self.root.parents), self.root):
                if not folder.exists():
                    storage.make_folder(folder)
            with storage.locked(self.root):
                storage.clean_staging(self.root)
                yield

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """A folder that no reader looks into; gone afterwards unless it was renamed."""
        folder = storage.staging_path(self.root)
        try:
            storage.make_folder(folder)
            yield folder
        finally:
            if folder.exists():
                storage.remove_tree(folder)

    @staticmethod
    def _stage_weights(path: Path, stream: BinaryIO, *, promised: str) -> str:
        return storage.write_promised(path, stream, max_bytes=weights.MAX_WEIGHTS_BYTES, promised=promised)

    @staticmethod
    def _make_visible(folder: Path, card: bytes, weights_name: str, weights_sha256: str, target: Path) -> None:
        """Write the card, check what the disk holds, and rename."""
        storage.write_bytes(folder / CARD, card)
        storage.sync_folder(folder)
        for name, expected in ((CARD, storage.sha256_bytes(card)), (weights_name, weights_sha256)):
            found = storage.sha256_file(folder / name)
            if found != expected:
                raise RegistryError(f"{name} must read back with SHA-256 {expected}, got {found}; check the disk")
        storage.rename_folder(folder, target)


@contextlib.contextmanager
def _open_weights(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise RegistryError(f"the staged weights {path} cannot be read: {error.strerror or error}") from error
    with stream:
        yield stream
