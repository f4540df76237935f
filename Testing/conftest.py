"""Fixtures shared by every suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")  # the same examples in every run: a red run can be repeated

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    """The only source of randomness in tests."""
    return np.random.default_rng(20260101)


@pytest.fixture(autouse=True)
def _one_quiet_thread() -> None:
    """Torch tests run on one thread from one seed, so that they repeat and do not fight over the cores."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def shared_data() -> Path:
    """The real scans beside the checkout; tests that ask for it carry the ``data`` marker."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the real scans are not on this machine ({SHARED_DATA} is missing)")
    return SHARED_DATA
