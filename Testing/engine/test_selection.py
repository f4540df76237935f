from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from analytic_model import threshold_model

from wbcss.cards import TaskCard
from wbcss.errors import InputError
from wbcss.labels import OrganName, TaskId
from wbcss.selection import left_out_note, select

LIVER, SPLEEN, AORTA = OrganName("liver"), OrganName("spleen"), OrganName("aorta")
WHOLE, CHEST, ASKED = TaskId("wholebody"), TaskId("chest"), TaskId("metastases")
TUMOR = OrganName("liver_tumor")


@pytest.fixture(scope="module")
def cards() -> Mapping[TaskId, TaskCard]:
    return threshold_model({"wholebody": {"liver": 0, "spleen": 1}, "chest": {"aorta": 0, "liver": 1}}).cards


@pytest.fixture(scope="module")
def with_asked(cards: Mapping[TaskId, TaskCard]) -> Mapping[TaskId, TaskCard]:
    """A task between the others that runs on request and knows the liver too."""
    liver = cards[WHOLE].organs[0]
    tumor = dataclasses.replace(liver, name=TUMOR, label=10000)
    asked = dataclasses.replace(cards[WHOLE], task=ASKED, organs=(liver, tumor), on_request=True)
    return {WHOLE: cards[WHOLE], ASKED: asked, CHEST: cards[CHEST]}


def test_everything_by_default(cards: Mapping[TaskId, TaskCard]) -> None:
    chosen = select(cards)
    assert chosen.tasks == (WHOLE, CHEST)
    assert [organ.name for organ in chosen.organs] == [LIVER, SPLEEN, AORTA]


def test_a_task_that_knows_no_organ_asked_for_is_not_run(cards: Mapping[TaskId, TaskCard]) -> None:
    assert select(cards, organs=[SPLEEN]).tasks == (WHOLE,)
    assert select(cards, organs=[LIVER]).tasks == (WHOLE, CHEST)
    assert select(cards, organs=[LIVER], tasks=[CHEST]).tasks == (CHEST,)


def test_the_order_asked_in_does_not_matter(cards: Mapping[TaskId, TaskCard]) -> None:
    assert select(cards, tasks=[CHEST, WHOLE], organs=[AORTA, LIVER]) == select(cards, organs=[LIVER, AORTA])


def test_unknown_names_are_answered_with_near_ones(cards: Mapping[TaskId, TaskCard]) -> None:
    with pytest.raises(InputError, match=r"unknown organ 'livr'; did you mean liver\?"):
        select(cards, organs=[OrganName("livr")])
    with pytest.raises(InputError, match=r"unknown organ 'qqq'; the loaded model knows aorta, liver, spleen"):
        select(cards, organs=[OrganName("qqq")])
    with pytest.raises(InputError, match=r"unknown task 'chst'; did you mean chest\?"):
        select(cards, tasks=[TaskId("chst")])
    with pytest.raises(InputError, match=r"unknown organ 'spleen'; the loaded model knows aorta, liver"):
        select(cards, organs=[SPLEEN], tasks=[CHEST])


def test_asking_for_nothing_is_refused(cards: Mapping[TaskId, TaskCard]) -> None:
    with pytest.raises(InputError, match="at least one organ or task must be asked for, got none"):
        select(cards, organs=[])


def test_a_task_on_request_does_not_run_by_default(
    cards: Mapping[TaskId, TaskCard], with_asked: Mapping[TaskId, TaskCard]
) -> None:
    assert select(with_asked) == select(cards)
    assert select(with_asked, organs=[LIVER, AORTA]) == select(cards, organs=[LIVER, AORTA])


def test_naming_a_task_or_an_organ_of_its_own_is_a_request(with_asked: Mapping[TaskId, TaskCard]) -> None:
    assert select(with_asked, tasks=[ASKED]).tasks == (ASKED,)
    assert select(with_asked, tasks=[CHEST, ASKED]).tasks == (ASKED, CHEST)
    assert select(with_asked, organs=[TUMOR]).tasks == (ASKED,)
    both = select(with_asked, organs=[TUMOR, LIVER])
    assert both.tasks == (WHOLE, ASKED, CHEST)
    assert both.names == {TUMOR, LIVER}
    with pytest.raises(InputError, match=r"unknown organ 'liver_tumr'; did you mean liver_tumor or liver\?"):
        select(with_asked, organs=[OrganName("liver_tumr")])


def test_where_every_task_runs_on_request_one_must_be_named(with_asked: Mapping[TaskId, TaskCard]) -> None:
    alone = {ASKED: with_asked[ASKED]}
    with pytest.raises(InputError, match=r"every task here runs on request only, got no name; .* such as metastases"):
        select(alone)
    assert select(alone, organs=[LIVER]).tasks == (ASKED,)


def test_what_is_left_out_is_told_with_how_to_ask_for_it(
    cards: Mapping[TaskId, TaskCard], with_asked: Mapping[TaskId, TaskCard]
) -> None:
    assert left_out_note(cards.values()) == ""
    assert left_out_note(with_asked.values()) == (
        "left out, because it runs on request: metastases (liver, liver_tumor); "
        "to run everything: --tasks wholebody,metastases,chest"
    )
