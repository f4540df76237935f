"""Merge rules as a file, and what the command makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_scan import fix_backend, make_registry, write_scan

from wbcss.cli.main import main
from wbcss.errors import InputError
from wbcss.mergerules import read_rules, write_rules
from wbcss.specs import MergeRules


def test_rules_read_back(tmp_path: Path) -> None:
    rules = MergeRules(strategy="most_confident", bias=-1.5, lesion_mm3=12.0)
    write_rules(rules, tmp_path / "rules.json")
    assert read_rules(tmp_path / "rules.json") == rules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "merge rules must be a readable JSON file, got rules.json"),
        ("{", "merge rules must be a readable JSON file, got rules.json"),
        ("{}", 'rules.json must be a JSON object with "format": "wbcss-merge-rules"'),
        ('{"format": "wbcss-merge-rules", "vote": 1}', "rules.json: MergeRules has no field vote"),
        ('{"format": "wbcss-merge-rules", "bias": "x"}', "rules.json: MergeRules cannot be read"),
        (
            '{"format": "wbcss-merge-rules", "gate_weight": -2}',
            "rules.json: gate_weight must be a number of at least 0, got -2",
        ),
    ],
)
def test_rules_that_cannot_be_read_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "rules.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_rules(path)


def test_the_command_takes_rules_and_remembers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fix_backend(monkeypatch)
    registry = make_registry(tmp_path / "models" / "registry")
    scan = write_scan(tmp_path / "ct.nii.gz")
    write_rules(MergeRules(strategy="last_writer"), tmp_path / "rules.json")
    command = ["segment", str(scan), "-o", str(tmp_path / "out.seg.nrrd"), "--registry", str(registry.root), "--quiet"]
    rules = ["--merge-rules", str(tmp_path / "rules.json")]
    assert main([*command, *rules, "--repair-numbering"]) == 0
    made_from = json.loads((tmp_path / "out.report.json").read_text())["made_from"]
    assert made_from["merge_rules"]["strategy"] == "last_writer"
    assert made_from["repair_numbering"] is True
    assert main([*command, "--merge-rules", "gone.json"]) == 2
    assert "merge rules must be a readable JSON file, got gone.json" in capsys.readouterr().err
