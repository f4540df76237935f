"""Decoders in fewer bits: ranges and rounding against slow versions, and Dice of every precision of a run's task."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_search
import torch
from torch.nn import functional as F

from wbcss.cards import EncoderCard, TaskCard
from wbcss.catalogue import find
from wbcss.errors import DeviceError, SpecError
from wbcss.labels import TaskId
from wbcss.loading import load_decoder, save_weights
from wbcss.nn.decoder import Decoder
from wbcss.registry import Registry, StagedEncoder, StagedTask
from wbcss.specs import DecoderSpec
from wbcss_training.cli.main import main
from wbcss_training.patches import FeaturePatch
from wbcss_training.runfolder import RunFolder
from wbcss_training.search.accuracy import mean_dice
from wbcss_training.search.space import without_finest
from wbcss_training.sizing import precision
from wbcss_training.sizing.precision import FLOAT32, HALF, INT8, GraphDecoder, Range, input_ranges, precision_cost
from wbcss_training.sizing.report import _precisions

ENCODER, FULL = tiny_search.ENCODER, tiny_search.FULL
SIZES = ((16, 16, 16), (8, 8, 8), (8, 4, 4))


def skips_of(rng: np.random.Generator) -> list[torch.Tensor]:
    shapes = zip(ENCODER.stage_channels, SIZES, strict=True)
    return [torch.from_numpy(rng.normal(size=(1, channels, *size)).astype(np.float32)) for channels, size in shapes]


def patch_of(skips: list[torch.Tensor]) -> FeaturePatch:
    return FeaturePatch(
        tuple(skip[0].half() for skip in skips), torch.zeros(16, 16, 16, dtype=torch.uint8), torch.ones(4).bool()
    )


def decoder_of(spec: DecoderSpec = FULL) -> Decoder:
    torch.manual_seed(3)
    return Decoder(spec, ENCODER).eval()


def written_out(
    decoder: Decoder, skips: list[torch.Tensor], ranges: tuple[Range, ...] | None
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Features, and what every convolution block reads; with ``ranges`` rounded to 8 bits, step by step."""
    read: list[torch.Tensor] = []
    x = skips[2]
    with torch.no_grad():
        for level in (1, 0):
            x = decoder.ups[level](x)
            blocks = list(decoder.stages[level])  # type: ignore[arg-type]
            if blocks:
                x = torch.cat([x, skips[level]], dim=1)
            for block in blocks:
                read.append(x)
                weight = block.conv.weight
                if ranges is not None:
                    low, high = ranges[len(read) - 1]
                    step = (high - low) / 255
                    first = round(low / step)
                    x = step * torch.round(x / step).clamp(first, first + 255)
                    scale = weight.abs().amax(dim=(1, 2, 3, 4), keepdim=True) / 127
                    weight = scale * torch.round(weight / scale)
                x = F.conv3d(x, weight, block.conv.bias, padding=1)
                x = F.leaky_relu(F.instance_norm(x, weight=block.norm.weight, bias=block.norm.bias), 0.01)
    return x, read


@pytest.mark.parametrize("spec", [FULL, without_finest(FULL)])
def test_ranges_are_the_ends_of_what_blocks_read(spec: DecoderSpec, rng: np.random.Generator) -> None:
    decoder, given = decoder_of(spec), [skips_of(rng), skips_of(rng)]
    found = input_ranges(decoder, [patch_of(skips) for skips in given])
    halves = [[skip.half().float() for skip in skips] for skips in given]
    reads = [written_out(decoder, skips, None)[1] for skips in halves]
    expected = [
        (min(float(x.min()) for x in both), max(float(x.max()) for x in both)) for both in zip(*reads, strict=True)
    ]
    assert found == pytest.approx(np.array(expected), abs=1e-5)
    assert len(found) == sum(spec.convs_per_stage)
    assert not any(block._forward_pre_hooks for block in decoder.modules())


def test_ranges_need_a_patch() -> None:
    with pytest.raises(SpecError, match="ranges for int8 need at least one patch, got none"):
        input_ranges(decoder_of(), [])


@pytest.mark.parametrize(("counts", "times"), [((1, 0), 20), ((2, 1), 4)])
def test_the_graph_rounds_as_written_out(counts: tuple[int, int], times: int, rng: np.random.Generator) -> None:
    """In ranges so wide that rounding shows: it is met far more closely than the decoder without rounding.

    What lies between two levels may be rounded to either side, and every further convolution adds to that.
    """
    pytest.importorskip("openvino")
    decoder, skips = decoder_of(dataclasses.replace(FULL, convs_per_stage=counts)), skips_of(rng)
    plain, read = written_out(decoder, skips, None)
    wide = tuple((20 * float(x.min()), 20 * float(x.max())) for x in read)
    expected, _ = written_out(decoder, skips, wide)
    found = GraphDecoder(decoder, ENCODER, (16, 16, 16), ranges=wide, threads=1).features(skips)
    rounding = float((expected - plain).abs().mean())
    assert rounding > 0.05
    assert float((found - expected).abs().mean()) < rounding / times
    unrounded = GraphDecoder(decoder, ENCODER, (16, 16, 16), threads=1).features(skips)
    assert float((unrounded - plain).abs().mean()) < 0.02


def test_every_convolution_needs_a_range() -> None:
    pytest.importorskip("openvino")
    with pytest.raises(SpecError, match="each of the 3 convolutions needs a range, got 1"):
        GraphDecoder(decoder_of(), ENCODER, (16, 16, 16), ranges=((0.0, 1.0),))


def test_without_openvino_there_is_nothing_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "is_installed", lambda: False)
    with pytest.raises(DeviceError, match="by the package openvino, got none; pip install openvino"):
        GraphDecoder(decoder_of(), ENCODER, (16, 16, 16))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A task of three organs on the encoder of ``tiny_search``."""
    registry, weights = Registry(tmp_path / "registry"), tmp_path / "w.safetensors"
    save_weights(tiny_search.frozen_encoder().state_dict(), weights)
    facts = {"license": "CC0-1.0", "provenance": "random numbers", "created": "2026-11-20"}
    encoder = registry.publish_encoder(
        StagedEncoder(card=EncoderCard(name="tiny", spec=ENCODER, **facts), weights=weights)  # type: ignore[arg-type]
    )
    save_weights(decoder_of().state_dict(), weights)
    card = TaskCard(
        task=TaskId("boxes"),
        organs=find(["liver", "spleen", "colon"]),
        spec=FULL,
        encoder_sha256=encoder.weights_sha256,
        training_cases=1,
        **facts,  # type: ignore[arg-type]
    )
    registry.publish(StagedTask(card=card, weights=weights))
    return registry


def run_of(root: Path, registry: Registry, *, sides: dict[str, int], sha256: str | None = None) -> RunFolder:
    """A run folder with encoded patches."""
    run = RunFolder(root)
    known = sha256 or registry.encoder_card().weights_sha256
    run.begin({"task": "boxes", "encoder_sha256": known}, steps=1, estimate={})
    places = {}
    for seed, (side, count) in enumerate(sides.items()):
        tiny_search.pool(root / "features" / side, count=count, seed=5 + seed)
        places[side] = {"folder": side, "count": count}
    run.write("trained.json", {"training": None, "held_out": None, **places})
    return run


def test_float32_is_the_published_decoder_and_fewer_bits_come_close(registry: Registry, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    run = run_of(tmp_path / "run", registry, sides={"training": 2, "held_out": 2})
    before = registry.fingerprint()
    cost = precision_cost(registry, run, threads=1)
    assert (cost.title, cost.patch, cost.patches) == ("boxes@1", (16, 16, 16), 2)
    assert list(cost.dice) == list(cost.seconds) == [FLOAT32, HALF, INT8]
    _, judging = precision._pools(run, "boxes")
    decoder = load_decoder(registry, registry.card(TaskId("boxes")))
    assert cost.dice[FLOAT32] == mean_dice(decoder, judging) > 0
    assert cost.dice[HALF] == pytest.approx(cost.dice[FLOAT32], abs=0.02)
    assert cost.dice[INT8] == pytest.approx(cost.dice[FLOAT32], abs=0.02)
    assert min(cost.seconds.values()) > 0
    assert registry.fingerprint() == before
    text = _precisions([dataclasses.replace(cost, dice={FLOAT32: 0.9, INT8: 0.89}, seconds={FLOAT32: 0.2, INT8: 0.1})])
    assert text[-1] == "| boxes@1 | 16-16-16 | 2 | int8 | 0.8900 | 1.00 | 100.0 ms |"
    json.dumps(dataclasses.asdict(cost))


def test_the_report_has_the_precisions_of_a_run(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr("wbcss_training.sizing.timing.candidates", lambda request: ("float32",))
    run = run_of(tmp_path / "run", registry, sides={"held_out": 2})
    command = ["size", "--registry", registry.root, "--out", tmp_path / "out", "--precision", run.root]
    assert main([*map(str, command), "--repeats", "1", "--device", "cpu"]) == 0
    assert "| boxes@1 | 16-16-16 | 1 | int8 |" in capsys.readouterr().out
    (cost,) = json.loads((tmp_path / "out" / "size.json").read_text())["precision"]
    assert list(cost["dice"]) == [FLOAT32, HALF, INT8]


def test_what_calibrates_is_not_asked_about(registry: Registry, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", registry, sides={"held_out": 5})
    calibrating, judging = precision._pools(run, "boxes")
    spans = [range(pool.first, pool.first + pool.count) for pool in (calibrating, judging)]
    assert spans == [range(2), range(2, 5)]


@pytest.mark.parametrize("sides", [{}, {"held_out": 1}, {"training": 2}])
def test_a_run_without_patches_to_ask_about_is_told(registry: Registry, tmp_path: Path, sides: dict[str, int]) -> None:
    run = run_of(tmp_path / "run", registry, sides=sides)
    with pytest.raises(SpecError, match="needs held-out patches beside those that calibrate, got none in the run run"):
        precision_cost(registry, run)


def test_a_run_on_another_encoder_is_told(registry: Registry, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", registry, sides={}, sha256="f" * 64)
    with pytest.raises(SpecError, match=r"got one on ffffffffffff\.\.\.; name a run of a task of this registry"):
        precision_cost(registry, run)
