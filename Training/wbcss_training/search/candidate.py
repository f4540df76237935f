"""A decoder of a given spec, trained on encoded patches and measured: what search and sweep are compared by."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wbcss.errors import SpecError
from wbcss.io.atomic import write_text
from wbcss.jsontypes import build
from wbcss.loading import save_weights
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.specs import DecoderSpec, spec_from_json, spec_to_json

from ..casepools import CasePools
from ..enrollment import Schedule
from ..learner import build_decoder_learner
from ..rounds import train_in_rounds
from ..runfolder import DECODER
from .accuracy import mean_dice
from .costmodel import CostModel, DecoderCost
from .measuring import Machine, measure_decoder

_RESULT = "candidate.json"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained decoder.

    Attributes:
        name: For tables.
        seed: Of weights and patches.
        spec: Architecture.
        cost: Predicted.
        measured_s: Time per tile of the whole decoder; None where the table is of another machine.
        dice: Mean over organs on the held-out patches.
    """

    name: str
    seed: int
    spec: DecoderSpec
    cost: DecoderCost
    measured_s: float | None
    dice: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "spec": spec_to_json(self.spec)}


@dataclass(frozen=True, eq=False)
class Classroom:
    """Where candidates are trained on equal terms.

    Attributes:
        encoder: The frozen encoder; only its spec is read, as its answers are in the pools.
        pools: Encoded patches.
        schedule: Of every candidate; the architecture, the seed and resting levels are replaced.
        model: Costs on the target machine.
        device: Where they are trained.
    """

    encoder: Encoder
    pools: CasePools
    schedule: Schedule
    model: CostModel
    device: torch.device

    def candidate(
        self,
        spec: DecoderSpec,
        run_dir: Path,
        *,
        name: str,
        seed: int,
        progress: Progress = silent,
        cancelled: IsCancelled = never,
    ) -> Candidate:
        """Train (or go on training) ``spec`` from random weights in ``run_dir``; one that is done is read.

        Raises:
            SpecError: no case is held out, or ``run_dir`` holds another candidate.
            Cancelled: ``cancelled`` returned true; a checkpoint was written.
        """
        held_out = self.pools.held_out
        if held_out is None:
            raise SpecError("decoders are compared on held-out cases, got none; raise --validation-fraction")
        path = run_dir / _RESULT
        if path.is_file():
            return _read(path, spec, seed)
        config = dataclasses.replace(self.schedule.config, seed=seed)
        schedule = dataclasses.replace(self.schedule, config=config, decoder=spec, coarse_steps=0, patience=None)
        torch.manual_seed(seed)
        trained = train_in_rounds(
            build_decoder_learner(self.encoder, spec, config).to(self.device),
            dataclasses.replace(self.pools.training, seed=seed),
            held_out,
            schedule=schedule,
            run_dir=run_dir,
            progress=progress,
            cancelled=cancelled,
        )
        decoder = Decoder(spec, self.encoder.spec)
        decoder.load_state_dict(trained.state)
        save_weights(trained.state, run_dir / DECODER)
        found = Candidate(
            name=name,
            seed=seed,
            spec=spec,
            cost=self.model.cost(spec),
            measured_s=self._measured_s(decoder),
            dice=mean_dice(decoder.to(self.device).eval(), held_out),
        )
        write_text(path, json.dumps(found.to_json(), indent=1) + "\n")
        return found

    def _measured_s(self, decoder: Decoder) -> float | None:
        table = self.model.table
        device = torch.device("cpu") if table.machine.kind == "cpu" else self.device
        if device.type != table.machine.kind or Machine.of(device) != table.machine:
            return None
        return measure_decoder(decoder, self.encoder.spec, table.tile, table.machine, device)


def _read(path: Path, spec: DecoderSpec, seed: int) -> Candidate:
    """A candidate that is done. Raises SpecError if it is another one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = Candidate(
            **{
                **values,
                "spec": spec_from_json(DecoderSpec, values["spec"]),
                "cost": build(DecoderCost, values["cost"], where="cost"),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{path.name} must hold a trained candidate, got {error}; name another run folder") from error
    if (found.spec, found.seed) != (spec, seed):
        raise SpecError(
            f"{path.parent.name} holds a candidate of {found.spec.stage_channels} channels and seed {found.seed}, "
            f"expected {spec.stage_channels} and {seed}; name another run folder"
        )
    return found
