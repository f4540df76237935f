"""The organ tree without its widgets: groups, ticks of three states, search, presets, and the tasks that follow."""

from __future__ import annotations

import pytest

from wbcss.catalogue import catalogue, groups
from wbcss.errors import InputError
from wbcss.organlist import organ_items
from wbcss.protocol import OrganItem
from wbcss.registry import Registry
from wbcss.resources import starter_registry
from WholeBodyCSSLib.OrganChoice import PRESETS, WHOLE_BODY, OrganChoice, Tick


def organ(
    name: str, group: str, *tasks: str, synonyms: tuple[str, ...] = (), on_request: tuple[str, ...] = ()
) -> OrganItem:
    return OrganItem(
        name=name,
        label=1,
        display_name=name.replace("_", " ").capitalize(),
        group=group,
        color_rgb=(1, 2, 3),
        terminology="",
        tasks=tasks,
        synonyms=synonyms,
        on_request=on_request,
    )


LIVER = organ("liver", "abdomen", "wholebody", synonyms=("hepatic",))
KIDNEY = organ("kidney_left", "abdomen", "wholebody", synonyms=("renal",))
HEART = organ("heart", "cardiac", "chest", "wholebody")
CYST = organ("pancreas_cyst", "my_organs", "cyst")


TUMOR = organ("liver_tumor", "lesion", "tumors", on_request=("tumors",))
SHARED = organ("liver", "abdomen", "wholebody", "tumors", on_request=("tumors",))


@pytest.fixture
def choice() -> OrganChoice:
    return OrganChoice([CYST, LIVER, KIDNEY, HEART])


def test_everything_is_ticked_at_first_and_then_nothing_needs_to_be_named(choice: OrganChoice) -> None:
    assert choice.ticked == ("pancreas_cyst", "liver", "kidney_left", "heart")
    assert choice.wanted is None


def test_groups_come_in_the_order_of_the_catalogue_and_enrolled_ones_last(choice: OrganChoice) -> None:
    assert [(group.name, group.title) for group in choice.groups()] == [
        ("cardiac", "Heart"),
        ("abdomen", "Abdomen"),
        ("my_organs", "My organs"),
    ]


def test_the_box_of_a_group_is_partly_ticked_when_some_of_its_organs_are(choice: OrganChoice) -> None:
    abdomen = (LIVER, KIDNEY)
    assert choice.state(abdomen) is Tick.ON
    choice.tick(["liver"], False)
    assert choice.state(abdomen) is Tick.PARTLY
    choice.tick(["kidney_left"], False)
    assert choice.state(abdomen) is Tick.OFF
    choice.tick(["liver", "kidney_left"])
    assert choice.state(abdomen) is Tick.ON


def test_only_the_tasks_of_ticked_organs_are_run(choice: OrganChoice) -> None:
    assert choice.tasks() == ("cyst", "wholebody", "chest")
    choice.tick(["pancreas_cyst"], False)
    assert choice.tasks() == ("wholebody", "chest")
    choice.choose(["pancreas_cyst"])
    assert choice.tasks() == ("cyst",)
    choice.choose([])
    assert choice.tasks() == ()
    assert choice.tasks(["liver"]) == ("wholebody",)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {"pancreas_cyst", "liver", "kidney_left", "heart"}),
        ("LIV", {"liver"}),
        ("kidney left", {"kidney_left"}),
        ("left kid", {"kidney_left"}),
        ("hepat", {"liver"}),
        ("renal left", {"kidney_left"}),
        ("abdomen", {"liver", "kidney_left"}),
        ("chest", {"heart"}),
        ("iver", set()),
        ("liver heart", set()),
    ],
)
def test_search_finds_names_synonyms_groups_and_tasks_by_the_beginnings_of_words(
    choice: OrganChoice, text: str, found: set[str]
) -> None:
    assert choice.matches(text) == found


def test_a_preset_ticks_its_organs_and_is_recognized_again(choice: OrganChoice) -> None:
    assert choice.presets() == (WHOLE_BODY, "chest", "abdomen", "vascular")
    assert choice.preset() == WHOLE_BODY
    choice.applyPreset("abdomen")
    assert choice.ticked == ("liver", "kidney_left")
    assert choice.preset() == "abdomen"
    choice.tick(["heart"])
    assert choice.preset() == ""
    choice.applyPreset(WHOLE_BODY)
    assert choice.wanted is None


def test_an_unknown_preset_or_organ_is_refused(choice: OrganChoice) -> None:
    with pytest.raises(InputError, match=r"one of wholeBody, headNeck, .*, got 'tail'"):
        choice.applyPreset("tail")
    with pytest.raises(InputError, match="known to the registry, got gills, tail"):
        choice.tick(["tail", "liver", "gills"])


def test_a_newly_published_organ_is_ticked_only_where_everything_was(choice: OrganChoice) -> None:
    spleen = organ("spleen", "abdomen", "wholebody")
    choice.setOrgans([LIVER, spleen])
    assert choice.ticked == ("liver", "spleen")
    choice.tick(["liver"], False)
    choice.setOrgans([LIVER, spleen, HEART])
    assert choice.ticked == ("spleen",)


def test_a_remembered_choice_passes_over_what_was_retired(choice: OrganChoice) -> None:
    choice.choose(["liver", "retired organ"])
    assert choice.ticked == ("liver",)


def test_presets_name_only_what_the_catalogue_has() -> None:
    for preset in PRESETS.values():
        assert preset.groups <= set(groups())
        assert preset.organs <= set(catalogue())


def test_every_preset_finds_organs_in_the_shipped_registry_but_lesions() -> None:
    shipped = OrganChoice(organ_items(Registry(starter_registry())))
    assert set(PRESETS) - set(shipped.presets()) <= {"lesions"}
    shipped.applyPreset("skeleton")
    assert "vertebrae_L3" in shipped.ticked
    assert "liver" not in shipped.ticked


def test_an_organ_on_request_is_ticked_by_itself_only() -> None:
    choice = OrganChoice([SHARED, KIDNEY, TUMOR])
    assert choice.ticked == choice.usual == ("liver", "kidney_left")
    assert choice.wanted is None
    assert choice.preset() == WHOLE_BODY
    assert "lesions" not in choice.presets()
    choice.tick(["liver_tumor"])
    assert choice.wanted == ("liver", "kidney_left", "liver_tumor")
    choice.setOrgans([SHARED, KIDNEY, TUMOR])
    assert choice.isTicked("liver_tumor")
    choice.applyPreset(WHOLE_BODY)
    assert choice.wanted is None
    assert not choice.isTicked("liver_tumor")
    choice.choose(None)
    assert choice.ticked == ("liver", "kidney_left")


def test_a_task_on_request_runs_for_its_own_organs_and_not_for_those_that_others_know() -> None:
    choice = OrganChoice([SHARED, KIDNEY, TUMOR])
    assert choice.tasks() == choice.tasks(["liver"]) == ("wholebody",)
    assert choice.tasks(["liver_tumor"]) == ("tumors",)
    assert choice.tasks(["liver", "liver_tumor"]) == ("wholebody", "tumors")


def test_the_box_of_a_group_does_not_stand_for_an_organ_on_request() -> None:
    cyst = organ("liver_cyst", "lesion", "wholebody")
    choice = OrganChoice([cyst, TUMOR])
    assert choice.boxed((cyst, TUMOR)) == (cyst,)
    assert choice.state((cyst, TUMOR)) is Tick.ON
    choice.choose(["liver_tumor"])
    assert choice.state((cyst, TUMOR)) is Tick.PARTLY
    assert choice.boxed((TUMOR,)) == (TUMOR,)
    assert choice.state((TUMOR,)) is Tick.ON
