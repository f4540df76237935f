"""The model that stays loaded: which tasks it needs, and when it is loaded anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_registry import new_registry, publish

from wbcss.errors import InputError, RegistryError
from wbcss.labels import OrganName, TaskId
from wbcss.registry import Registry
from wbcss.warm import WarmModel, needed_tasks

TRUNK, HEAD = TaskId("trunk"), TaskId("head")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = new_registry(tmp_path / "registry")
    publish(made, TRUNK, {"liver": 5, "spleen": 1})
    publish(made, HEAD, {"brain": 90, "liver": 5}, seed=2)
    return made


def _organs(*names: str) -> list[OrganName]:
    return [OrganName(name) for name in names]


def test_only_the_tasks_of_the_wanted_organs_are_needed(registry: Registry) -> None:
    assert needed_tasks(registry) == (TRUNK, HEAD)
    assert needed_tasks(registry, organs=_organs("spleen")) == (TRUNK,)
    assert needed_tasks(registry, organs=_organs("brain")) == (HEAD,)
    assert needed_tasks(registry, organs=_organs("liver")) == (TRUNK, HEAD)
    assert needed_tasks(registry, tasks=[HEAD]) == (HEAD,)


def test_an_unknown_organ_or_task_is_refused_with_what_there_is(registry: Registry) -> None:
    with pytest.raises(InputError, match="unknown organ 'livr'; did you mean liver"):
        needed_tasks(registry, organs=_organs("livr"))
    with pytest.raises(InputError, match="unknown organ 'xylophone'"):
        needed_tasks(registry, organs=_organs("xylophone"))
    with pytest.raises(InputError, match="unknown task 'feet'"):
        needed_tasks(registry, tasks=[TaskId("feet")])


def test_an_empty_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="must hold at least one task, got none"):
        needed_tasks(new_registry(tmp_path / "registry"))


def test_the_model_stays_for_a_job_that_needs_no_other_task(registry: Registry) -> None:
    warm = WarmModel()
    both = warm.load(registry, (TRUNK, HEAD))
    assert warm.load(registry, (HEAD,)) is both
    assert warm.load(Registry(registry.root), (TRUNK, HEAD)) is both


def test_a_further_task_is_loaded(registry: Registry) -> None:
    warm = WarmModel()
    one = warm.load(registry, (TRUNK,))
    assert tuple(one.cards) == (TRUNK,)
    assert tuple(warm.load(registry, (TRUNK, HEAD)).cards) == (TRUNK, HEAD)


def test_a_new_version_of_a_task_is_loaded(registry: Registry) -> None:
    warm = WarmModel()
    old = warm.load(registry, (TRUNK, HEAD))
    publish(Registry(registry.root), TRUNK, {"liver": 5, "spleen": 1}, seed=3)
    assert warm.load(registry, (HEAD,)) is old
    assert warm.load(registry, (TRUNK,)).cards[TRUNK].version == 2
