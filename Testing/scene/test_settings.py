"""Preferences survive a session, whatever somebody wrote into the settings file, and hold nothing about patients."""

from __future__ import annotations

from pathlib import Path

import pytest

from wbcss.labels import TaskId
from WholeBodyCSSLib.Settings import PREFIX, MemoryStore, Preference, Settings

PREFERENCES = {name: value for name, value in vars(Settings).items() if isinstance(value, Preference)}


def test_what_was_set_is_read_by_the_next_session() -> None:
    store = MemoryStore()
    first = Settings(store)
    first.device, first.quality, first.show3D, first.keepWorkerWarm = "cuda:1", "best", False, False
    first.registryFolder, first.caseFolder = "/data/Träger/registry", "/data/cases"
    second = Settings(store)
    assert (second.device, second.quality, second.show3D, second.keepWorkerWarm) == ("cuda:1", "best", False, False)
    assert second.ownRegistry == Path("/data/Träger/registry")
    assert second.caseFolder == "/data/cases"


@pytest.mark.parametrize(("written", "read"), [("true", True), ("false", False), ("0", False), (1, True), ("x", True)])
def test_a_boolean_is_read_from_the_words_of_a_settings_file(written: object, read: bool) -> None:
    settings = Settings()
    settings.store.setValue(f"{PREFIX}show3D", written)
    assert settings.show3D is read


@pytest.mark.parametrize("written", ["superb", 7, None, ["fast"]])
def test_a_value_nobody_offers_reads_as_the_default(written: object) -> None:
    settings = Settings()
    settings.store.setValue(f"{PREFIX}quality", written)
    assert settings.quality == "normal"


def test_tasks_are_switched_off_and_on_one_by_one() -> None:
    settings = Settings()
    liver, spleen = TaskId("liver"), TaskId("spleen")
    settings.setTaskEnabled(liver, False)
    settings.setTaskEnabled(spleen, False)
    settings.setTaskEnabled(liver, True)
    assert settings.disabledTasks == {spleen}
    settings.store.setValue(f"{PREFIX}disabledTasks", "spleen ../x LIVER")
    assert settings.disabledTasks == {spleen}


def test_every_key_is_under_one_heading_and_none_is_about_a_patient() -> None:
    settings = Settings()
    for name, preference in PREFERENCES.items():
        setattr(settings, name, preference.default)
    settings.setTaskEnabled(TaskId("liver"), False)
    store = settings.store
    assert isinstance(store, MemoryStore)
    assert {key.rpartition("/")[0] + "/" for key in store.values} == {PREFIX}
    words = ("patient", "name", "study", "series", "volume", "node", "scan")
    assert [key for key in store.values if any(word in key.lower() for word in words)] == []
