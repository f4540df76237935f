"""Who works in a run folder, how a call ended, and the wish for a pause."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from process_runs import ENVIRONMENT

from wbcss.errors import Cancelled, RunError
from wbcss.progress import never
from wbcss.storage import held
from wbcss_training.runfolder import RunFolder
from wbcss_training.runstate import LOCK, PAUSE, STATE, at_work

HOLDS = """
import sys, time
from pathlib import Path
from wbcss.progress import never
from wbcss_training.runfolder import RunFolder
from wbcss_training.runstate import at_work
with at_work(RunFolder(Path(sys.argv[1])), never):
    print("working", flush=True)
    time.sleep(60)
"""


def state(root: Path) -> dict[str, object]:
    values = json.loads((root / STATE).read_text())
    assert values.pop("pid") == os.getpid()
    return dict(values)


def test_the_end_of_the_work_is_recorded(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with at_work(folder, never):
        assert state(folder.root) == {"state": "running", "message": ""}
    assert state(folder.root) == {"state": "finished", "message": ""}


@pytest.mark.parametrize(
    ("error", "ended", "message"),
    [
        (Cancelled("stopped at step 3; go on with --resume"), "paused", "stopped at step 3; go on with --resume"),
        (KeyboardInterrupt(), "paused", "KeyboardInterrupt"),
        (RunError("the loss is nan in /data/smith/ct.nii.gz"), "failed", "the loss is nan in (name removed)"),
        (ValueError("/data/smith/ct.nii.gz"), "failed", "ValueError"),
    ],
)
def test_an_error_is_recorded_without_the_names_of_files(
    tmp_path: Path, error: BaseException, ended: str, message: str
) -> None:
    with pytest.raises(type(error)), at_work(RunFolder(tmp_path), never):
        raise error
    assert state(tmp_path) == {"state": ended, "message": message}


def test_a_file_asks_for_a_pause_and_an_old_wish_does_not_count(tmp_path: Path) -> None:
    (tmp_path / PAUSE).touch()
    with at_work(RunFolder(tmp_path), never) as stopped:
        assert not stopped()
        (tmp_path / PAUSE).touch()
        assert stopped()
    with at_work(RunFolder(tmp_path), lambda: True) as stopped:
        assert stopped()


def test_a_run_folder_has_one_worker_and_is_free_again_when_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    with pytest.raises(RunError, match=f"the run folder {tmp_path} must be free, but another"):
        at_work(RunFolder(tmp_path), never).__enter__()
    process.kill()
    process.wait()
    process.stdout.close()
    with held(tmp_path / LOCK) as is_free:
        assert is_free
    assert json.loads((tmp_path / STATE).read_text())["state"] == "running"  # what a look at the lock belies
