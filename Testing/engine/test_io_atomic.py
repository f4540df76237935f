"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wbcss.errors import EXIT_INPUT, OutputError
from wbcss.io import atomic
from wbcss.io.atomic import PARTIAL_PREFIX, atomic_path, remove_stale_partials, write_bytes, write_text

PACKAGE_ROOT = Path(atomic.__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_file_appears_under_its_name_and_nothing_else_remains(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.seg.nrrd") as temporary:
        temporary.write_bytes(b"whole")
        assert names(tmp_path) == [temporary.name]
    assert names(tmp_path) == ["a.seg.nrrd"]
    assert (tmp_path / "a.seg.nrrd").read_bytes() == b"whole"


def test_the_temporary_is_hidden_and_keeps_the_suffix(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "liver.nii.gz") as temporary:
        assert temporary.name.startswith(PARTIAL_PREFIX)
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path
        temporary.touch()


def test_a_name_as_long_as_the_system_allows_still_works(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    write_bytes(path, b"1")
    assert path.read_bytes() == b"1"


def write_half_then_fail(path: Path, failure: BaseException) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise failure


@pytest.mark.parametrize("failure", [ValueError("bad voxel"), KeyboardInterrupt(), SystemExit(3)])
def test_any_failure_leaves_the_old_file_and_no_temporary(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b"old")
    with pytest.raises(type(failure)):
        write_half_then_fail(path, failure)
    assert names(tmp_path) == ["report.json"]
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match=r"cannot write .*out\.nii\.gz: the disk is full") as caught:
        write_half_then_fail(tmp_path / "out.nii.gz", full)
    assert caught.value.exit_code == EXIT_INPUT
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EDQUOT, "quota is used up"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_other_refusals_of_the_system_are_named(tmp_path: Path, number: int, text: str) -> None:
    with pytest.raises(OutputError, match=text):
        write_half_then_fail(tmp_path / "a.csv", OSError(number, os.strerror(number)))
    assert names(tmp_path) == []


def test_a_full_disk_found_only_by_fsync_is_an_error_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="the disk is full"):
        write_bytes(tmp_path / "a.csv", b"1")
    assert names(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*nowhere does not exist; create it first"):
        write_text(tmp_path / "nowhere" / "a.csv", "1")


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file is not a folder"):
        write_text(tmp_path / "file" / "a.csv", "1")


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OutputError, match="a folder of that name is there"):
        write_text(tmp_path / "a.csv", "1")
    assert names(tmp_path) == ["a.csv"]


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "Größe\n1\r\n")
    assert (tmp_path / "a.csv").read_bytes() == "Größe\n1\r\n".encode()


def test_a_process_killed_in_the_middle_leaves_no_final_file_and_does_not_block_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.seg.nrrd"
    script = (
        "import sys, time; from pathlib import Path; from wbcss.io.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(PARTIAL_PREFIX)

    write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert leftover.exists(), "a young leftover may belong to a running process"
    assert remove_stale_partials(tmp_path, older_than_s=-1.0) == 1
    assert names(tmp_path) == ["out.seg.nrrd"]


def test_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    old, young, foreign = (tmp_path / name for name in (f"{PARTIAL_PREFIX}1.nii", f"{PARTIAL_PREFIX}2.nii", "mine.nii"))
    for file in (old, young, foreign):
        file.touch()
    days_ago = time.time() - 3 * 24 * 3600
    os.utime(old, (days_ago, days_ago))
    os.utime(foreign, (days_ago, days_ago))
    assert remove_stale_partials(tmp_path) == 1
    assert names(tmp_path) == sorted([young.name, "mine.nii"])


def test_a_write_past_a_real_size_limit_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; from pathlib import Path; from wbcss.errors import OutputError\n"
        "from wbcss.io.atomic import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes(Path(sys.argv[1]), bytes(5000))\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.bin")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    )
    assert "larger than the system allows" in done.stdout
    assert names(tmp_path) == []
