"""The words for *please check*: every flag that the engine can raise has a sentence."""

from __future__ import annotations

import ast
from pathlib import Path

import wbcss
from wbcss import checks
from wbcss.protocol import OrganCheck
from WholeBodyCSSLib.CheckText import checkText, checkTexts, sentences


def flags_of_the_engine() -> set[str]:
    """The flags of all checks that the sources of the engine make; each is a plain string there."""
    calls = [
        node
        for path in Path(wbcss.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "Check"
    ]
    return {ast.literal_eval(word.value) for call in calls for word in call.keywords if word.arg == "flag"}


def test_every_flag_of_the_engine_has_words_and_nothing_else_has() -> None:
    flags = flags_of_the_engine()
    assert len(flags) >= len(checks.RULES) > 1
    assert set(checkTexts()) == flags


def test_titles_fit_into_a_table_and_sentences_are_sentences() -> None:
    texts = list(checkTexts().values())
    assert len({text.title for text in texts}) == len({text.fact for text in texts}) == len(texts)
    for text in texts:
        assert len(text.title) <= 16
        assert "_" not in text.title
        for sentence in (text.fact, text.advice):
            assert sentence[0].isupper()
            assert sentence.endswith(".")
            assert "_" not in sentence


def test_a_flag_that_nobody_has_heard_of_is_readable_all_the_same() -> None:
    assert checkText("expected_size").title == "Expected size"
    assert sentences(OrganCheck(flag="expected_size", reason="")) == "Expected size."
    assert checkText("touches_border") == checkTexts()["touches_border"]


def test_a_reason_says_what_was_measured_and_what_to_look_at() -> None:
    measured = OrganCheck(flag="volume_unusual", reason="has 20.0 ml, where 60.0 to 90.0 ml are usual")
    advice = "Look whether a part is missing or too much is included."
    assert sentences(measured) == f"Has 20.0 ml, where 60.0 to 90.0 ml are usual. {advice}"
    assert sentences(OrganCheck(flag="volume_unusual", reason="")) == f"Is much smaller or larger than usual. {advice}"
