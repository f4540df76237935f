"""What hosts list: every organ once, with the tasks that may run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_registry import publish
from tiny_scan import make_registry

from wbcss.labels import TaskId
from wbcss.organlist import organ_items
from wbcss.registry import Registry
from wbcss.resources import starter_registry


def test_an_organ_is_listed_once_with_all_its_tasks(tmp_path: Path) -> None:
    items = organ_items(make_registry(tmp_path / "registry"))
    assert {item.name: item.tasks for item in items} == {
        "liver": ("trunk", "head"),
        "spleen": ("trunk",),
        "brain": ("head",),
        "skull": ("head",),
    }


def test_an_organ_says_which_of_its_tasks_run_for_it(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "registry")
    publish(registry, "lesions", {"liver": 5, "x_tumor": 10000}, seed=3, on_request=True)
    items = {item.name: item for item in organ_items(registry)}
    assert (items["liver"].tasks, items["liver"].on_request) == (("trunk", "head", "lesions"), ("lesions",))
    assert items["liver"].needed == ("trunk", "head")
    assert not items["liver"].is_on_request
    assert items["x_tumor"].needed == items["x_tumor"].on_request == ("lesions",)
    assert items["x_tumor"].is_on_request
    assert (items["spleen"].on_request, items["spleen"].is_on_request) == ((), False)


@pytest.mark.parametrize(
    ("without", "left"),
    [
        (("head",), {"liver": ("trunk",), "spleen": ("trunk",)}),
        (("trunk",), {"liver": ("head",), "brain": ("head",), "skull": ("head",)}),
        (("head", "trunk"), {}),
        (("of another registry",), {"liver", "spleen", "brain", "skull"}),
    ],
)
def test_a_task_left_out_takes_its_own_organs_with_it(tmp_path: Path, without: tuple[str, ...], left: object) -> None:
    items = organ_items(make_registry(tmp_path / "registry"), without=[TaskId(task) for task in without])
    assert ({item.name: item.tasks for item in items} if isinstance(left, dict) else {i.name for i in items}) == left


def test_the_shipped_organs_can_be_found_by_their_synonyms() -> None:
    items = {item.name: item for item in organ_items(Registry(starter_registry()))}
    assert "splenic" in items["spleen"].synonyms
    assert items["spleen"].display_name == "Spleen"
