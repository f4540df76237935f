"""From registry to network and back to files: hashes first, nothing unpickled, every key and shape accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from . import storage, weights
from .anomaly import OrganReference
from .cards import EncoderCard, TaskCard
from .confidence import ConfidenceHead
from .errors import RegistryError
from .io.atomic import write_bytes
from .labels import TaskId
from .layout import BODY_PART, DECODER, ENCODER
from .levelcard import LevelCard, level_head_shapes
from .levelstore import level_card, level_weights
from .nn.decoder import Decoder
from .nn.encoder import Encoder, freeze
from .nn.levelhead import LevelHead
from .nn.model import WholeBodyModel
from .registry import Registry

MAX_FLOAT16 = 65504.0


@dataclass(frozen=True, eq=False)
class LoadedLevelHead:
    """The head that tells levels of the body, on the CPU, frozen, and its card."""

    head: LevelHead
    card: LevelCard


@dataclass(frozen=True, eq=False)
class TaskEvidence:
    """What lies beside a decoder: either may be missing."""

    certainty: ConfidenceHead | None = None
    reference: OrganReference | None = None


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that is ready to run, and the cards that describe it.

    Attributes:
        network: On the CPU, float32, in evaluation mode, without gradients.
        encoder_card: Card of its encoder.
        cards: Card of every loaded task, in registry order.
        levels: The level head; None in a registry without.
        evidence: By task; of a task that is missing there is none.
    """

    network: WholeBodyModel
    encoder_card: EncoderCard
    cards: Mapping[TaskId, TaskCard]
    levels: LoadedLevelHead | None = None
    evidence: Mapping[TaskId, TaskEvidence] = field(default_factory=dict)


def load_model(registry: Registry, tasks: Iterable[TaskId] | None = None) -> LoadedModel:
    """Build the encoder and the decoders of ``tasks`` (default: all visible ones). Other decoders are not read.

    Raises:
        RegistryError: a task is unknown, nothing is published, or a file does not match its card. The message names
            the file.
    """
    encoder_card = registry.encoder_card()
    cards = _chosen(registry, tasks)
    decoders = {card.task: load_decoder(registry, card) for card in cards}
    network = WholeBodyModel(load_encoder(registry), decoders)
    freeze(network)
    return LoadedModel(
        network,
        encoder_card,
        {card.task: card for card in cards},
        load_level_head(registry),
        {card.task: load_evidence(registry, card) for card in cards if card.evidence_sha256},
    )


def load_encoder(registry: Registry) -> Encoder:
    """The frozen encoder, on the CPU, float32. Raises RegistryError if there is none or its file is another one."""
    card = registry.encoder_card()
    encoder = Encoder(card.spec)
    state = load_weights(
        registry.encoder_weights(), sha256=card.weights_sha256, shapes=weights.encoder_shapes(card.spec)
    )
    _fill(encoder, state, source=ENCODER)
    freeze(encoder)
    return encoder


def load_decoder(registry: Registry, card: TaskCard) -> Decoder:
    """The decoder of one published version, retired or not, on the CPU, float32, frozen.

    Raises RegistryError if it was made for another encoder or does not match its card.
    """
    encoder = registry.encoder_card()
    _check_loadable(card, encoder)
    decoder = Decoder(card.spec, encoder.spec)
    shapes = weights.decoder_shapes(card.spec, encoder.spec)
    state = load_weights(registry.task_weights(card), sha256=card.weights_sha256, shapes=shapes)
    _fill(decoder, state, source=f"{card.title} {DECODER}")
    freeze(decoder)
    return decoder


def load_level_head(registry: Registry) -> LoadedLevelHead | None:
    """The level head, or None in a registry without. Raises RegistryError if it does not match its card."""
    card = level_card(registry)
    if card is None:
        return None
    encoder = registry.encoder_card().spec
    head = LevelHead(encoder.stage_channels[-1], card.hidden)
    shapes = level_head_shapes(card, encoder)
    _fill(head, load_weights(level_weights(registry), sha256=card.weights_sha256, shapes=shapes), source=BODY_PART)
    freeze(head)
    return LoadedLevelHead(head, card)


def load_evidence(registry: Registry, card: TaskCard) -> TaskEvidence:
    """The evidence of one published version; nothing in older ones. Raises RegistryError if it does not match."""
    if not card.evidence_sha256:
        return TaskEvidence()
    return read_evidence(registry.task_evidence(card), card, sha256=card.evidence_sha256)


def read_evidence(path: Path, card: TaskCard, *, sha256: str) -> TaskEvidence:
    """An evidence file for the decoder of ``card``. Raises RegistryError if it does not fit."""
    tensors = load_weights(path, sha256=sha256, shapes=lambda found: weights.evidence_shapes(card.spec, found))
    sums = {name: tensor.numpy() for name, tensor in tensors.items()}
    return TaskEvidence(ConfidenceHead.of(tensors), OrganReference.of(sums))


def save_evidence(evidence: TaskEvidence, path: Path) -> None:
    """Write ``evidence`` as float32 safetensors; equal evidence gives equal bytes.

    Raises RegistryError if there is none or a number is not finite, OutputError if the file cannot be written.
    """
    tensors = {} if evidence.certainty is None else evidence.certainty.tensors()
    if evidence.reference is not None:
        tensors |= {name: torch.from_numpy(value) for name, value in evidence.reference.tensors().items()}
    if not tensors:
        raise RegistryError(f"{path.name} must hold at least one tensor, got none")
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise RegistryError(f"the tensor {name!r} of {path.name} must be finite, got {tensor.sum().item()}")
    copies = {name: tensors[name].detach().cpu().float().clone() for name in sorted(tensors)}
    write_bytes(path, safetensors.torch.save(copies))


def load_weights(
    path: Path, *, sha256: str, shapes: weights.Shapes | Callable[[Iterable[str]], weights.Shapes]
) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file as float32 on the CPU.

    The bytes that are hashed are the bytes that are parsed, so a file that changes meanwhile cannot slip through.

    Args:
        path: The file.
        sha256: What its bytes must hash to.
        shapes: Name and shape of every tensor it must hold, and no other; or what gives them from the names found.
    """
    source = "/".join(path.parts[-3:])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RegistryError(f"{source} cannot be read: {error.strerror or error}") from error
    found = storage.sha256_bytes(data)
    if found != sha256:
        raise RegistryError(
            f"{source} was changed after it was published: its card says SHA-256 {sha256[:12]}..., the file has "
            f"{found[:12]}...; restore it from a backup or import the task again"
        )
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise RegistryError(f"{source} is no readable safetensors file: {error}") from error
    infos = {name: weights.TensorInfo(str(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()}
    weights.check_shapes(infos, shapes(infos) if callable(shapes) else shapes, source=source)
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}


def save_weights(module_state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a state dict as float16 safetensors; equal weights give equal bytes. An existing file is replaced.

    Raises:
        RegistryError: a weight is no floating-point tensor, is not finite, or does not fit into float16.
        OutputError: the file cannot be written.
    """
    halves = {name: _half(name, module_state[name]) for name in sorted(module_state)}
    if not halves:
        raise RegistryError(f"{path.name} must hold at least one weight, got none")
    write_bytes(path, safetensors.torch.save(halves))


def _half(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise RegistryError(f"the weight {name!r} must be floating point, got {tensor.dtype}")
    # A copy of its own: safetensors refuses views and tensors that share memory.
    full = tensor.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(full).all()):
        bad = full[~torch.isfinite(full)].flatten()[0].item()
        raise RegistryError(f"the weight {name!r} must be finite, got {bad}; do not publish a diverged training")
    half = full.to(torch.float16).clone(memory_format=torch.contiguous_format)
    if not bool(torch.isfinite(half).all()):
        largest = full.abs().max().item()
        raise RegistryError(f"the weight {name!r} must lie within +-{MAX_FLOAT16:g} to be stored, got {largest:g}")
    return half


def _chosen(registry: Registry, tasks: Iterable[TaskId] | None) -> list[TaskCard]:
    """Cards to load, in registry order, whatever the order they were asked for in."""
    visible = list(registry.tasks())
    if tasks is None:
        if not visible:
            raise RegistryError(f"no task is published in the registry {registry.root}; import or enroll one first")
        return visible
    wanted = {task: registry.card(task) for task in tasks}
    if not wanted:
        raise RegistryError("at least one task must be named, got none")
    return [card for card in visible if card.task in wanted]


def _check_loadable(card: TaskCard, encoder: EncoderCard) -> None:
    if card.encoder_sha256 != encoder.weights_sha256:
        raise RegistryError(
            f"{card.title} was made for the encoder {card.encoder_sha256[:12]}..., but this registry has "
            f"{encoder.weights_sha256[:12]}... ({encoder.name})"
        )
    if card.kind != "own":
        raise RegistryError(f"{card.title} has a {card.kind!r} decoder; this version of the program runs 'own' ones")


def _fill(module: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    try:
        module.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise RegistryError(f"{source} does not fit its network: {error}") from error
