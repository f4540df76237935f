"""How small a trimmed decoder is: read from reports and cards, said in a sentence."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from wbcss_training.config import TrimConfig
from WholeBodyCSSLib.DecoderSize import DEFAULT_BUDGET, DecoderSize, decoderSize, outcomeSentence, sizeSentence

FULL: dict[str, Any] = {"parameters": 1_620_000, "macs": 400, "mean": {"dice": 0.9}}
KEPT: dict[str, Any] = {"parameters": 54_321, "macs": 50, "mean": {"dice": 0.8976}}
SMALL = DecoderSize(parameters=54_321, fullParameters=1_620_000, share=0.125, dice=0.8976, fullDice=0.9)


def test_the_small_decoder_is_read_beside_the_full_one() -> None:
    assert decoderSize({"full": FULL, "kept": KEPT}) == SMALL
    assert sizeSentence(SMALL) == (
        "54,321 parameters (full: 1.62 million), 12% of the arithmetic; Dice 0.898 (full: 0.900)"
    )


def test_what_is_a_little_of_the_arithmetic_is_not_none_of_it() -> None:
    assert ", 0.4% of the arithmetic" in sizeSentence(dataclasses.replace(SMALL, share=0.004, dice=None))


@pytest.mark.parametrize(
    "trimming",
    [
        None,
        {},
        [],
        "small",
        {"full": FULL},
        {"full": FULL, "kept": {}},
        {"full": {**FULL, "macs": 0}, "kept": KEPT},
        {"full": FULL, "kept": {**KEPT, "macs": float("nan")}},
        {"full": FULL, "kept": {**KEPT, "mean": None}},
    ],
)
def test_what_is_not_understood_counts_as_not_trimmed(trimming: object) -> None:
    assert decoderSize(trimming) is None


@pytest.mark.parametrize(
    ("report", "budget", "sentence"),
    [
        ({}, 0.15, ""),
        ({"trimming": {"full": FULL, "kept": KEPT}}, 0.15, f"Small decoder: {sizeSentence(SMALL)}."),
        (
            {"trimming": {"full": FULL, "kept": FULL}},
            0.15,
            "Full size: 1.62 million parameters; nothing smaller was as good in the held-out cases.",
        ),
        ({"trimming": {}}, None, "The decoder keeps its full size, as you chose."),
        ({"trimming": {}, "untrimmed": "too few cases"}, 0.15, "The decoder keeps its full size: too few cases."),
        ({"task": "a@1"}, 0.15, "The decoder keeps its full size: there was nothing to take away."),
    ],
)
def test_the_outcome_is_one_sentence(report: dict[str, Any], budget: float | None, sentence: str) -> None:
    assert outcomeSentence(report, budget) == sentence


def test_the_default_is_that_of_the_back_end() -> None:
    assert TrimConfig().budget == DEFAULT_BUDGET
