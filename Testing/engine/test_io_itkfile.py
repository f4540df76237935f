"""ITK's pixels are used in place, and its chatter does not reach the user."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from volume_files import ct, save_itk

from wbcss.io.itkfile import absorbed_stderr, read_itk


def test_what_c_code_prints_is_dropped_and_the_stream_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with absorbed_stderr(), absorbed_stderr():
        os.write(2, b"** ERROR from a library\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_the_stream_comes_back_after_an_error_too(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="bad"), absorbed_stderr():
        raise ValueError("bad")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_no_handle_is_leaked() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a listing, not paths
    for _ in range(20):
        with absorbed_stderr():
            pass
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_pixels_are_not_copied(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng, (8, 7, 6))
    image = read_itk(save_itk(tmp_path / "a.nrrd", voxels), image_io="NrrdImageIO")
    assert image.array.shape == (8, 7, 6, 1)
    assert image.array.strides[:3] == (2, 16, 112)
    assert not image.array.flags.owndata
