"""The shipped registry is never written into; the user's own one is made whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_registry import new_registry, publish

from wbcss import storage
from wbcss.errors import OutputError, RegistryError
from wbcss.package import export_task, import_task
from wbcss.registry import Registry
from WholeBodyCSSLib.RegistryPlaces import RegistryPlaces, defaultOwnFolder
from WholeBodyCSSLib.Settings import SHIPPED, Settings


@pytest.fixture
def shipped(tmp_path: Path) -> Registry:
    registry = new_registry(tmp_path / "shipped")
    publish(registry, "wholebody", {"liver": 5, "spleen": 1})
    return registry


@pytest.fixture
def places(shipped: Registry, tmp_path: Path) -> RegistryPlaces:
    return RegistryPlaces(Settings(), lambda: tmp_path / "Jörg Müller" / "registry", shipped.root)


def test_the_shipped_registry_is_used_until_something_must_be_written(places: RegistryPlaces) -> None:
    assert places.inUse == places.shipped
    assert places.isReadOnly
    assert not places.own.exists()


def test_the_own_registry_begins_as_a_sound_copy_and_is_used_from_then_on(places: RegistryPlaces) -> None:
    before = Registry(places.shipped).fingerprint()
    own = places.writable()
    assert places.inUse == own == places.own
    assert Registry(own).verify() == []
    assert Registry(own).fingerprint() == before
    publish(Registry(own), "cyst", {"x_cyst": 10000})
    assert Registry(places.shipped).fingerprint() == before
    assert places.writable() == own


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is another one on each system")
def test_the_default_folder_is_that_of_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert defaultOwnFolder() == tmp_path / "WholeBodyCSS" / "registry"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert defaultOwnFolder() == Path.home() / ".local/share/WholeBodyCSS/registry"


def test_the_user_may_go_back_to_the_shipped_one(shipped: Registry, tmp_path: Path) -> None:
    settings = Settings()
    places = RegistryPlaces(settings, lambda: tmp_path / "own", shipped.root)
    places.writable()
    settings.registryInUse = SHIPPED
    assert places.inUse == shipped.root
    places.writable()
    assert places.inUse == places.own


def test_the_folder_of_the_settings_is_taken(shipped: Registry, tmp_path: Path) -> None:
    settings = Settings()
    settings.registryFolder = str(tmp_path / "elsewhere")
    places = RegistryPlaces(settings, lambda: tmp_path / "own", shipped.root)
    assert places.writable() == tmp_path / "elsewhere"


def test_an_empty_folder_that_the_user_made_is_taken(places: RegistryPlaces) -> None:
    places.own.mkdir(parents=True)
    assert Registry(places.writable()).verify() == []


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(places: RegistryPlaces) -> None:
    places.own.mkdir(parents=True)
    (places.own / "thesis.txt").write_text("x", encoding="ascii")
    with pytest.raises(OutputError, match=r"must be empty or a registry, got .*registry; choose another one"):
        places.writable()
    assert (places.own / "thesis.txt").is_file()


def test_a_damaged_shipped_registry_is_not_copied(places: RegistryPlaces, shipped: Registry) -> None:
    weights = shipped.task_weights(shipped.tasks()[0])
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RegistryError, match=r"the shipped registry must be sound, got: tasks/wholebody/1/decoder"):
        places.writable()
    assert not places.own.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES], ids=["disk full", "no write access"])
def test_a_copy_that_fails_is_explained_and_leaves_nothing(
    places: RegistryPlaces, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def copytree(_source: Path, target: Path, **_options: Any) -> None:
        target.mkdir()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(shutil, "copytree", copytree)
    with pytest.raises(OutputError, match=rf"cannot make a folder for your own tasks at .*: {os.strerror(code)}"):
        places.writable()
    assert list(places.own.parent.iterdir()) == []
    assert places.inUse == places.shipped


def test_a_parent_that_is_a_file_is_explained(shipped: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="ascii")
    places = RegistryPlaces(Settings(), lambda: tmp_path / "file" / "registry", shipped.root)
    with pytest.raises(OutputError, match="cannot make a folder for your own tasks"):
        places.writable()
    places = RegistryPlaces(Settings(), lambda: tmp_path / "file", shipped.root)
    with pytest.raises(OutputError, match="cannot make a folder for your own tasks"):
        places.writable()
    assert (tmp_path / "file").is_file()


def test_two_slicers_that_make_it_at_once_end_with_one_registry(
    places: RegistryPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = storage.rename_folder

    def rename(source: Path, target: Path) -> None:
        shutil.copytree(source, target)  # the other one was faster
        real(source, target)

    monkeypatch.setattr(storage, "rename_folder", rename)
    assert Registry(places.writable()).verify() == []
    assert [path.name for path in places.own.parent.iterdir()] == ["registry"]


def test_a_newer_shipped_task_is_news_and_can_be_published_beside_the_old_one(
    places: RegistryPlaces, shipped: Registry, tmp_path: Path
) -> None:
    own = Registry(places.writable())
    assert places.news().updates == ()
    publish(shipped, "wholebody", {"liver": 5, "spleen": 1}, seed=9)
    publish(shipped, "chest", {"heart": 51})
    news = places.news()
    assert [card.title for card in news.updates] == ["wholebody@2", "chest@1"]
    import_task(own, export_task(shipped, news.updates[0].task, tmp_path))
    assert own.versions(news.updates[0].task) == (1, 2)
    assert [card.title for card in places.news().updates] == ["chest@1"]


def test_a_shipped_registry_with_another_encoder_is_reported(shipped: Registry, tmp_path: Path) -> None:
    own = new_registry(tmp_path / "own", seed=5)
    places = RegistryPlaces(Settings(), lambda: own.root, shipped.root)
    assert places.news().isOtherEncoder
    assert places.inUse == own.root
