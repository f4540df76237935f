"""Our method: a general encoder, frozen sooner or later, and a decoder of its own for every task."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch

from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import freeze
from wbcss.nn.model import WholeBodyModel

from ..former import FormerSelf
from ..learner import Learner
from .incremental import SHARED
from .lesson import Lesson
from .state import Learned, known, with_decoder

EncoderTraining = Literal["frozen", "first", "continual"]


@dataclass(frozen=True)
class OwnDecoders:
    """A decoder per task on one encoder; overlapping organs are settled by the product's merge when it is asked.

    Attributes:
        encoder: ``frozen`` from the start; trained on the ``first`` task and then frozen; or trained on every task,
            kept near its former self (``continual``).
        feature_distillation, decoder_distillation: Weights of that, as in TrainConfig.
    """

    title: str
    encoder: EncoderTraining = "frozen"
    feature_distillation: float = 0.0
    decoder_distillation: float = 0.0

    @property
    def scope(self) -> Literal["so_far"]:
        """All decoders so far answer."""
        return "so_far"

    def learn(self, lesson: Lesson) -> Learned:
        """The encoder with one more decoder; the former decoders are the same objects, untouched."""
        task, former = lesson.task, lesson.former
        if task.published is not None:
            network = lesson.published()
            return known(
                WholeBodyModel(network.encoder, {task.task: network.decoder(SHARED)}), {task.task: task.organs}
            )
        if former is None and self.encoder != "frozen":
            return lesson.shared_start("own", self._more)
        return self._more(lesson)

    def _more(self, lesson: Lesson) -> Learned:
        """Train the lesson's decoder, and the encoder where it still learns."""
        task, former = lesson.task, lesson.former
        start = lesson.start(task.organs)
        encoder = start.encoder if former is None else copy.deepcopy(former.model.encoder)
        config, past = task.train, None
        if self.encoder == "continual" and former is not None:
            encoder.requires_grad_(True)
            past = FormerSelf(former.model.encoder, {name: former.model.decoder(name) for name in former.model.tasks})
            config = dataclasses.replace(
                config,
                feature_distillation=self.feature_distillation,
                decoder_distillation=self.decoder_distillation,
            )
        elif self.encoder == "frozen" or former is not None:
            freeze(encoder)
        torch.manual_seed(task.train.seed)  # the heads of deep supervision
        learner = Learner(WholeBodyModel(encoder, {task.task: start.decoder(SHARED)}), config, past)
        average = lesson.fit(learner, config=config)
        assert isinstance(average, Learner)  # noqa: S101 -- narrows what the loop gives back
        organs = {**({} if former is None else former.organs), task.task: task.organs}
        decoder: Decoder = average.model.decoder(task.task)
        return known(with_decoder(former, average.model.encoder, task.task, decoder), organs)
