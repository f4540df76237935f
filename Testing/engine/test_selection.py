from __future__ import annotations

from collections.abc import Mapping

import pytest
from analytic_model import threshold_model

from wbcss.cards import TaskCard
from wbcss.errors import InputError
from wbcss.labels import OrganName, TaskId
from wbcss.selection import select

LIVER, SPLEEN, AORTA = OrganName("liver"), OrganName("spleen"), OrganName("aorta")
WHOLE, CHEST = TaskId("wholebody"), TaskId("chest")


@pytest.fixture(scope="module")
def cards() -> Mapping[TaskId, TaskCard]:
    return threshold_model({"wholebody": {"liver": 0, "spleen": 1}, "chest": {"aorta": 0, "liver": 1}}).cards


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
