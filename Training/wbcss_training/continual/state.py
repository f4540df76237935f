"""What a method knows after a task: networks, what their channels mean, and what it remembers besides."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from wbcss.cards import EncoderCard, TaskCard
from wbcss.catalogue import find
from wbcss.errors import RunError
from wbcss.io.atomic import write_bytes, write_text
from wbcss.labels import OrganName, TaskId, parse_organ_name, parse_task_id
from wbcss.loading import LoadedModel
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder, freeze
from wbcss.nn.model import WholeBodyModel, build_model
from wbcss.specs import DecoderSpec, EncoderSpec, spec_from_json, spec_to_json

from .cost import Cost, decoder_cost, encoder_cost, total

_FACTS, _TENSORS = "learned.json", "learned.safetensors"
_NEVER = "2000-01-01"


@dataclass(frozen=True, eq=False)
class Learned:
    """State of a method after a task, on the CPU.

    Attributes:
        model: Encoder and decoders.
        organs: What channels 1, 2, ... of every decoder mean.
        memory: Tensors that the method needs for the next task, by name.
    """

    model: WholeBodyModel
    organs: Mapping[TaskId, tuple[OrganName, ...]]
    memory: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def cost(self) -> Cost:
        """Cost of the encoder and all decoders."""
        spec = self.model.encoder.spec
        decoders = (decoder_cost(self.model.decoder(task).spec, spec) for task in self.model.tasks)
        return total([encoder_cost(spec), *decoders])

    def digest(self, tasks: Iterable[TaskId]) -> str:
        """SHA-256 of the encoder and the decoders of ``tasks``: equal only if they answer alike, bit for bit."""
        parts = [("encoder", self.model.encoder), *((task, self.model.decoder(task)) for task in sorted(tasks))]
        found = hashlib.sha256()
        for name, module in parts:
            found.update(repr((name, self.organs.get(TaskId(name)))).encode())
            for key, value in sorted(module.state_dict().items()):
                found.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def known(model: WholeBodyModel, organs: Mapping[TaskId, tuple[OrganName, ...]]) -> Learned:
    """``model`` as plain frozen modules on the CPU, with contiguous weights."""
    model.cpu()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    freeze(model)
    return Learned(model, organs)


def save_learned(learned: Learned, folder: Path) -> None:
    """Write ``learned`` into ``folder``; the JSON file comes last and says that all is there. Raises OutputError."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value for name, value in learned.model.state_dict().items()}
    tensors |= {f"memory.{name}": value for name, value in learned.memory.items()}
    write_bytes(folder / _TENSORS, safetensors.torch.save({k: v.detach().contiguous() for k, v in tensors.items()}))
    facts = {
        "encoder": spec_to_json(learned.model.encoder.spec),
        "decoders": [
            {"task": task, "organs": list(organs), "spec": spec_to_json(learned.model.decoder(task).spec)}
            for task, organs in learned.organs.items()
        ],
    }
    write_text(folder / _FACTS, json.dumps(facts, indent=1))


def load_learned(folder: Path) -> Learned | None:
    """What ``save_learned`` wrote; None if it never finished. Raises RunError if it was damaged since."""
    if not (folder / _FACTS).is_file():
        return None
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        tensors = safetensors.torch.load((folder / _TENSORS).read_bytes())
        specs = {parse_task_id(row["task"]): spec_from_json(DecoderSpec, row["spec"]) for row in facts["decoders"]}
        organs = {
            parse_task_id(row["task"]): tuple(parse_organ_name(name) for name in row["organs"])
            for row in facts["decoders"]
        }
        model = build_model(spec_from_json(EncoderSpec, facts["encoder"]), specs)
        model.load_state_dict({k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise RunError(
            f"the networks in {folder.name} cannot be read ({error}); remove that folder and go on with --resume"
        ) from error
    memory = {k[len("memory.") :]: v for k, v in tensors.items() if k.startswith("memory.")}
    learned = known(model, organs)
    return Learned(learned.model, learned.organs, memory)


def ready_to_run(learned: Learned, tasks: Iterable[TaskId]) -> LoadedModel:
    """The decoders of ``tasks`` as the product's ``segment`` takes them; their order is the order of publication.

    Raises:
        InputError: an organ is not in the catalogue.
    """
    chosen = [task for task in learned.organs if task in set(tasks)]
    encoder = learned.model.encoder
    sha256 = learned.digest(())
    network = WholeBodyModel(encoder, {task: learned.model.decoder(task) for task in chosen})
    freeze(network)
    cards = {
        task: TaskCard(
            task=task,
            version=1,
            sequence=number,
            organs=find(learned.organs[task]),
            spec=learned.model.decoder(task).spec,
            encoder_sha256=sha256,
            training_cases=0,
            license="unpublished",
            provenance="benchmark",
            created=_NEVER,
        )
        for number, task in enumerate(chosen, start=1)
    }
    card = EncoderCard(
        name="benchmark",
        spec=encoder.spec,
        weights_sha256=sha256,
        license="unpublished",
        provenance="benchmark",
        created=_NEVER,
    )
    return LoadedModel(network, card, cards)


def with_decoder(learned: Learned | None, encoder: Encoder, task: TaskId, decoder: Decoder) -> WholeBodyModel:
    """``encoder`` with the decoders that are known already and one more."""
    decoders = {} if learned is None else {name: learned.model.decoder(name) for name in learned.model.tasks}
    return WholeBodyModel(encoder, {**decoders, task: decoder})
