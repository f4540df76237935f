"""What all patch sources share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wbcss.preprocess import hu_to_channels
from wbcss_training.patches import patch_rng, windowed

WINDOWS = ((-1000.0, 1000.0), (-160.0, 240.0))


def test_windows_clip_and_map_to_minus_one_and_one() -> None:
    hu = torch.tensor([[[-2000.0, -1000.0, -160.0, 40.0, 240.0, 1000.0, 3000.0]]])
    wide, soft = windowed(hu, WINDOWS)
    assert wide.flatten().tolist() == pytest.approx([-1, -1, -0.16, 0.04, 0.24, 1, 1], abs=1e-6)
    assert soft.flatten().tolist() == pytest.approx([-1, -1, -1, 0, 1, 1, 1], abs=1e-6)


def test_training_sees_what_inference_sees(rng: np.random.Generator) -> None:
    hu = torch.from_numpy(rng.uniform(-1500, 1500, (4, 5, 6)).astype(np.float32))
    torch.testing.assert_close(windowed(hu, WINDOWS), hu_to_channels(hu[None], WINDOWS)[0], atol=1e-5, rtol=0)


def test_the_stream_of_a_patch_depends_on_seed_and_index_alone() -> None:
    draws = {(seed, index): patch_rng(seed, index).random() for seed in (0, 1, 2) for index in (0, 1, 2)}
    assert len(set(draws.values())) == 9
    assert patch_rng(1, 2).random() == draws[1, 2]
