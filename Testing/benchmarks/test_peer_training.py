"""What nnU-Net is given and how it is measured; its own training is not run here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tiny_sequence

from wbcss.io.reading import read_labels
from wbcss.io.writing import write_volume
from wbcss_training.continual.peers import Peer, read_peers
from wbcss_training.continual.sequence import read_sequence


@pytest.fixture
def script() -> ModuleType:
    path = Path(__file__).with_name("peer_training.py")
    spec = importlib.util.spec_from_file_location("peer_training", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_data_are_the_sequence_s_and_perfect_answers_score_one(script: ModuleType, tmp_path: Path) -> None:
    path = tiny_sequence.write_sequence(tmp_path)
    arguments = [str(path), "--work", str(tmp_path / "work"), "--run", str(tmp_path / "run"), "--prepare"]
    assert script.main(arguments) == 0
    raw = tmp_path / "work" / "nnUNet_raw"
    assert [len(list((raw / name / "labelsTr").iterdir())) for name in ("Dataset700_upper", "Dataset701_side")] == [
        2,
        1,
    ]
    facts = json.loads((raw / "Dataset701_side" / "dataset.json").read_text())
    assert facts["labels"] == {"background": 0, "spleen": 1}
    labels, affine, _ = read_labels(raw / "Dataset701_side" / "labelsTr" / "case_000.nii.gz")
    assert np.unique(labels).tolist() == [0, 1]  # the liver of the file is background here
    for number in range(tiny_sequence.NUM_CASES):
        write_volume(tmp_path / f"case_{number:03d}.nii.gz", labels, affine)
    task = read_sequence(path).tasks[1]
    assert script.measure(task, tmp_path) == {"spleen": 1.0}


def test_a_row_replaces_the_one_of_its_title(script: ModuleType, tmp_path: Path) -> None:
    for dice in (0.5, 0.75):
        script.add_peer(tmp_path, {"title": "nnU-Net", "dice": dice, "parameters": 3, "wall_s": 2.0})
    script.add_peer(tmp_path, {"title": "other", "dice": None})
    assert read_peers(tmp_path / "peers.json") == (
        Peer(title="nnU-Net", dice=0.75, parameters=3, wall_s=2.0),
        Peer(title="other", dice=None),
    )
