"""What a task that is to be learned is called: organs, colors, codes, and words for its card."""

from __future__ import annotations

import dataclasses
import json

import pytest

from wbcss.catalogue import catalogue
from wbcss.errors import InputError
from wbcss.labels import OrganName
from wbcss_training.publishing import new_organ
from WholeBodyCSSLib.EnrollOrgan import TaskDraft, asJson, draftOf, fromJson, searchCodes, taskName

KIDNEY = catalogue()[OrganName("kidney_left")]
GOOD = TaskDraft(license="CC0-1.0", provenance="ten CT of our clinic").withOrgans({"lump": "Lump 7"})


def test_a_known_organ_is_taken_as_it_is() -> None:
    draft = draftOf("kidney_left")
    assert (draft.title, draft.color, draft.isKnown) == (KIDNEY.display_name, KIDNEY.color_rgb, True)
    task = TaskDraft(organs=(draft,)).withOrgan(dataclasses.replace(draft, title="Other"))
    assert task.organs == (draft,)
    assert task.organCards() == {}


@pytest.mark.parametrize("isLesion", [False, True])
@pytest.mark.parametrize("code", [None, KIDNEY])
def test_the_back_end_takes_the_card_of_a_new_organ(isLesion: bool, code: object) -> None:
    """Law: what the wizard says of an organ is what is published."""
    draft = dataclasses.replace(draftOf("lump", "Lump 7"), isLesion=isLesion, code=code, color=(1, 2, 3))
    organ = new_organ(OrganName("lump"), 10000, draft.card())
    assert (organ.display_name, organ.color_rgb, organ.exact) == ("Lump 7", (1, 2, 3), False)
    where = organ.region if isLesion else organ.type
    assert where == (KIDNEY.type if code else (None if isLesion else organ.category))
    side = organ.region_modifier if isLesion else organ.type_modifier
    assert side == (KIDNEY.type_modifier if code else None)
    assert organ.group == ("lesion" if isLesion else "abdomen" if code else "other")
    assert organ.category.value == ("49755003" if isLesion else "123037004")


@pytest.mark.parametrize("isLesion", [False, True])
def test_the_code_of_a_lesion_brings_its_own_place(isLesion: bool) -> None:
    effusion = catalogue()[OrganName("pleural_effusion_left")]
    draft = dataclasses.replace(draftOf("lump"), isLesion=isLesion, code=effusion)
    organ = new_organ(OrganName("lump"), 10000, draft.card())
    for name in ("category", "type", "type_modifier", "region", "region_modifier", "side", "group"):
        assert getattr(organ, name) == getattr(effusion, name)
    assert draft.codeText == "Effusion, SNOMED CT 41699000"


def test_codes_are_found_by_name_synonym_and_number() -> None:
    assert searchCodes("64033007")[0].organ.type.meaning == "Kidney"
    assert {hit.organ.name for hit in searchCodes("renal")} >= {"kidney_left", "kidney_right"}
    assert searchCodes("Left kidney")[0].text == "Left kidney  (Kidney, SNOMED CT 64033007)"
    assert searchCodes("no such thing at all") == ()
    assert len(searchCodes("", limit=7)) == 7


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"task": "My task"}, "a task name must start with a lower-case letter"),
        ({"license": " "}, "say in the license"),
        ({"provenance": ""}, "say in a few words what the task is learned from"),
        ({"provenance": "scan of 1961-02-03"}, "must not name a patient, take 1961-02-03 out of it"),
        ({"limits": "see MRN 00412345"}, "take 00412345 out of it"),
        ({"organs": (dataclasses.replace(GOOD.organs[0], title=" "),)}, "the organ lump needs a name"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, object], problem: str) -> None:
    draft = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]
    assert problem in draft.problem()
    with pytest.raises(InputError, match=r"\w"):
        draft.arguments()


def test_a_good_draft_asks_the_back_end() -> None:
    assert GOOD.problem() == ""
    assert GOOD.arguments() == (
        *("--task", "lump", "--start-from", "auto"),
        *("--license", "CC0-1.0", "--provenance", "ten CT of our clinic"),
    )
    assert dataclasses.replace(GOOD, limits="adults").arguments()[-2:] == ("--limits", "adults")


def test_a_task_with_a_lesion_runs_on_request_unless_somebody_says_otherwise() -> None:
    assert not GOOD.isOnRequest
    lesion = GOOD.withOrgan(dataclasses.replace(GOOD.organs[0], isLesion=True))
    assert lesion.arguments() == (*GOOD.arguments(), "--on-request")
    assert dataclasses.replace(lesion, onRequest=False).arguments() == GOOD.arguments()
    assert dataclasses.replace(GOOD, onRequest=True).isOnRequest
    known = TaskDraft().withOrgans({"pleural_effusion_left": "Effusion"})
    assert known.isOnRequest  # the catalogue knows it as a lesion


def test_the_task_is_called_after_its_new_organ_and_what_was_said_stays() -> None:
    draft = TaskDraft().withOrgans({"liver": "Liver", "lump": "Lump 7"})
    assert draft.task == "lump"
    said = draft.withOrgan(dataclasses.replace(draft.organs[1], color=(9, 9, 9)))
    assert said.withOrgans({"lump": "Lump 7", "spleen": "Spleen"}).organs[0].color == (9, 9, 9)
    assert taskName("vertebrae_L1") == "vertebrae_l1"


def test_a_draft_survives_slicer() -> None:
    organ = dataclasses.replace(GOOD.organs[0], isLesion=True, code=KIDNEY, title="Knoten")
    draft = dataclasses.replace(GOOD.withOrgans({"lump": "", "liver": ""}).withOrgan(organ), startFrom="none")
    for said in (None, False, True):
        draft = dataclasses.replace(draft, onRequest=said)
        assert fromJson(json.loads(json.dumps(asJson(draft)))) == draft
    older = {name: value for name, value in asJson(GOOD).items() if name != "onRequest"}
    assert fromJson(older).onRequest is None
