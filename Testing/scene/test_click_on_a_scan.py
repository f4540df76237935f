"""What a user does first, in the harness with the real worker and the shipped model, on a real scan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import widget_hosts

SCAN = Path(__file__).resolve().parents[3] / "shared" / "data" / "totalsegmentator" / "example_ct.nii.gz"
SCRIPT = Path(__file__).with_name("click_in_slicer.py")

pytestmark = [pytest.mark.data, pytest.mark.timeout(1500)]


@pytest.mark.skipif(not SCAN.is_file(), reason="the real scan of ../shared/data is not on this machine")
@pytest.mark.parametrize("host", [widget_hosts.HARNESS, widget_hosts.SLICER])
def test_a_click_is_followed_by_progress_cancel_and_a_second_run_by_organs(host: str, tmp_path: Path) -> None:
    done = widget_hosts.run_script(host, SCRIPT, str(SCAN), str(tmp_path / "report.json"), timeout_s=1400)
    assert done.returncode == 0, widget_hosts.tail(done)
    report = json.loads((tmp_path / "report.json").read_text())
    print(json.dumps({key: value for key, value in report.items() if key not in {"progress", "organs"}}, indent=1))  # noqa: T201
    assert report["cancel_s"] < 1.0
    assert report["worker_cpu_s_after_cancel"] < 0.9  # idle or gone, not still at work
    assert max(report["longest_pause_s"].values()) < 0.5
    assert report["progress"] == sorted(report["progress"])
    assert len(report["progress"]) > 10
    organs = report["organs"]
    assert organs["count"] >= 60
    assert organs["coded"] == organs["with_surface"] == organs["count"]
    assert len(set(organs["names"])) == organs["count"]
    assert organs["most_of_one_color"] <= organs["count"] // 4
