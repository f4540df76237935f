"""`wbcss-train size`: three files, a registry that is only read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_registry

from wbcss.registry import Registry
from wbcss_training.cli.main import main
from wbcss_training.sizing import timing

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """One task; only the reference runs, as compiling takes longer than all else."""
    monkeypatch.setattr(timing, "candidates", lambda request: ("float32",))
    registry = tiny_registry.new_registry(tmp_path / "registry")
    tiny_registry.publish(registry)
    return registry


def test_a_report_lies_in_the_folder_and_the_registry_is_only_read(
    registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    before, out = registry.fingerprint(), tmp_path / "deep" / "out"
    command = ["size", "--registry", str(registry.root), "--out", str(out), "--repeats", "1", "--device", "cpu"]
    assert main([*command, "--threads", "1"]) == 0
    assert capsys.readouterr().out == (out / "size.md").read_text()
    assert (out / "size.png").read_bytes().startswith(b"\x89PNG")
    values = json.loads((out / "size.json").read_text())
    assert (values["format"], values["threads"], list(values["clocks"])) == ("wbcss-size", 1, ["cpu torch-float32"])
    assert str(tmp_path) not in json.dumps(values)
    assert registry.fingerprint() == before
    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["tasks"][0]["published"]["macs"] == values["tasks"][0]["published"]["macs"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "spleen"], "'spleen'"),
        (["--repeats", "0"], "median of at least one run, got 0"),
        (["--repeats", "-1"], "must not be negative, got -1"),
        (["--full", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_told(
    registry: Registry, tmp_path: Path, options: list[str], message: str, capsys: Capture
) -> None:
    command = ["size", "--registry", str(registry.root), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
