"""Synthetic cases as files: read back as any case, drawn alike by the same seed, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_enrollment
import tiny_training

from wbcss.errors import Cancelled, SpecError
from wbcss.labels import OrganName
from wbcss_training.annotation import read_case
from wbcss_training.cases import read_case_list
from wbcss_training.cli.main import main
from wbcss_training.patches import patch_rng
from wbcss_training.synthesis import SyntheticPatches
from wbcss_training.syntheticcases import LIST, write_synthetic_cases


@pytest.fixture
def source(atlas_dir: Path, atlas_cache: Path) -> SyntheticPatches:
    return SyntheticPatches(
        task=tiny_training.TASK,
        organs=tiny_training.ORGANS,
        atlas_dir=atlas_dir,
        cache_dir=atlas_cache,
        encoder=tiny_training.ENCODER,
        seed=3,
    )


def test_cases_are_read_back_as_they_were_drawn(source: SyntheticPatches, tmp_path: Path) -> None:
    cases = read_case_list(write_synthetic_cases(source, tmp_path / "cases", count=2))
    assert len(cases) == 2
    for number, case in enumerate(cases):
        hu, channels = source.scan(patch_rng(source.seed, number))
        volume, labels = read_case(case)
        np.testing.assert_array_equal(volume.voxels, np.rint(hu.numpy()))
        np.testing.assert_array_equal(labels, channels.numpy())
        np.testing.assert_allclose(volume.spacing_mm, source.encoder.spacing_mm)
        assert [case.values[channel] for channel in (1, 2, 3)] == list(tiny_training.ORGANS)
        assert case.absent == "background"


def test_without_a_list_there_are_no_cases(source: SyntheticPatches, tmp_path: Path) -> None:
    with pytest.raises(Cancelled, match="stopped after 0 of 2 synthetic cases"):
        write_synthetic_cases(source, tmp_path / "cases", count=2, cancelled=lambda: True)
    assert not (tmp_path / "cases" / LIST).exists()
    with pytest.raises(SpecError, match="must be at least 1, got 0"):
        write_synthetic_cases(source, tmp_path / "cases", count=0)


def test_the_command_draws_for_the_encoder_of_a_registry(
    atlas_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")
    words = ["synthesize", str(atlas_dir), "-o", str(tmp_path / "cases"), "--registry", str(registry.root)]
    assert main([*words, "--count", "1", "--shape", "12,8,16"]) == 0
    assert "1 cases of 6 organs" in capsys.readouterr().out
    (case,) = read_case_list(tmp_path / "cases" / LIST)
    volume, _ = read_case(case)
    assert volume.shape == (12, 8, 16)
    assert volume.spacing_mm == tiny_enrollment.ENCODER.spacing_mm
    facts = json.loads((tmp_path / "cases" / LIST).read_text())
    assert set(facts["organs"].values()) > set(tiny_training.ORGANS)
    for shape in ("12,10", "a,b,c", "0,1,2"):
        assert main([*words, "--shape", shape]) == 2
        assert f"got '{shape}'" in capsys.readouterr().err


def test_a_task_is_shown_what_is_about_as_high_as_its_organs(source: SyntheticPatches) -> None:
    heights = source._atlas.sites[:, 3]
    assert len(source._sites) > 0
    low, high = source._sites[:, 3].min(), source._sites[:, 3].max()
    inside = source._atlas.sites[source._channels.numpy()[source._atlas.sites[:, 0]] > 0, 3]
    margin = 150.0 / source._atlas.spacing_mm
    expected = (heights >= inside.min() - margin) & (heights <= inside.max() + margin)
    assert (low, high) == (heights[expected].min(), heights[expected].max())
    assert OrganName("liver") in source.organs
