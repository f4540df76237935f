"""Fixtures of the training suite."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_training

from wbcss_training.atlas import prepare_atlas


@pytest.fixture(scope="session")
def atlas_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The atlas of boxes; nobody writes to it."""
    return tiny_training.write_atlas(tmp_path_factory.mktemp("atlas"))


@pytest.fixture(scope="session")
def atlas_cache(atlas_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The atlas of boxes, measured once."""
    cache_dir = tmp_path_factory.mktemp("cache") / "atlas"
    prepare_atlas(atlas_dir, cache_dir)
    return cache_dir
