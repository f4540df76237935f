"""An output that cannot be written is told before any work; a disk that fails leaves what was there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from written_organs import KIDNEY, LIVER

from wbcss.errors import EXIT_INPUT, OutputError
from wbcss.io import writing
from wbcss.io.atomic import PARTIAL_PREFIX
from wbcss.io.reading import read_volume
from wbcss.io.writing import check_output, check_output_folder, write_segmentation, write_volume

PACKAGE_ROOT = Path(writing.__file__).resolve().parents[2]
LABELS = np.array([0, 5, 300, 5, 0, 0, 300, 300], np.uint16).reshape(2, 2, 2)


@pytest.mark.parametrize("name", ["out.nrrd", "out.nii", "out", "out.png", "seg.nrrd.gz"])
def test_an_output_of_unknown_kind_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=rf"must end in \.seg\.nrrd or \.nii\.gz, got '{name}'") as caught:
        check_output(tmp_path / name)
    assert caught.value.exit_code == EXIT_INPUT
    with pytest.raises(OutputError, match=rf"got '{name}'"):
        write_segmentation(tmp_path / name, np.zeros((2, 2, 2), np.uint16), np.eye(4), [LIVER])


def test_a_good_output_leaves_no_trace_of_the_check(tmp_path: Path) -> None:
    check_output(tmp_path / "a.seg.nrrd", expected_bytes=1000)
    check_output_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_output_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*nowhere/a\.seg\.nrrd: the folder .*nowhere does not exist"):
        check_output(tmp_path / "nowhere" / "a.seg.nrrd")


def test_the_folder_of_a_batch_is_made(tmp_path: Path) -> None:
    check_output_folder(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()


def test_the_output_of_a_batch_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"must be a folder, but .*file is a file"):
        check_output_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="is not a folder"):
        check_output_folder(tmp_path / "file" / "deeper")


def test_a_folder_in_the_place_of_the_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(OutputError, match="a folder of that name is there"):
        check_output(tmp_path / "a.nii.gz")


def test_too_little_space_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3_000_000))
    with pytest.raises(OutputError, match="12 MB are needed and 3 MB are free"):
        check_output(tmp_path / "a.seg.nrrd", expected_bytes=12_000_000)


def test_a_folder_that_may_not_be_written_to_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Simulated: tests may run as root, whom permission bits do not stop.
    def refuse(self: Path, content: bytes) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*a\.seg\.nrrd: permission denied"):
        check_output(tmp_path / "a.seg.nrrd")


def test_a_write_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.seg.nrrd").touch()
    monkeypatch.setattr(writing.os, "access", lambda path, mode: False)
    with pytest.raises(OutputError, match="the file there is write-protected"):
        check_output(tmp_path / "a.seg.nrrd")


@pytest.mark.parametrize("name", ["a.seg.nrrd", "a.nii.gz"])
def test_a_disk_that_fills_up_leaves_the_old_result_whole(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_segmentation(tmp_path / name, LABELS, np.eye(4), [LIVER])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(file: object, chunks: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "write_gzip", full)
    with pytest.raises(OutputError, match=f"cannot write .*{name}: the disk is full"):
        write_segmentation(tmp_path / name, LABELS, np.eye(4), [KIDNEY])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, env=environment, check=True
    )


def test_a_real_limit_on_file_size_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from wbcss.errors import OutputError; from wbcss.io.writing import write_volume\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "noise = np.random.default_rng(0).integers(-1000, 1000, (64, 64, 64)).astype(np.int16)\n"
        "for name in ('a.nii', 'a.nii.gz', 'a.nrrd'):\n"
        "    try: write_volume(Path(sys.argv[1]) / name, noise, np.eye(4))\n"
        "    except OutputError as error: print(error)\n",
        tmp_path,
    )
    assert done.stdout.count("larger than the system allows") == 3
    assert list(tmp_path.iterdir()) == []


def test_a_writer_killed_at_any_moment_leaves_no_half_file(tmp_path: Path, rng: np.random.Generator) -> None:
    script = (
        "import sys; from pathlib import Path; import numpy as np; from wbcss.io.writing import write_volume\n"
        "noise = np.random.default_rng(0).integers(-1000, 1000, (128, 128, 64)).astype(np.int16)\n"
        "write_volume(Path(sys.argv[1]) / 'a.nii.gz', noise, np.eye(4)); print('once', flush=True)\n"
        "while True: write_volume(Path(sys.argv[1]) / 'a.nii.gz', noise, np.eye(4))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"once\n"
        time.sleep(float(rng.uniform(0.05, 0.3)))
        process.send_signal(signal.SIGKILL)
    assert read_volume(tmp_path / "a.nii.gz").volume.shape == (128, 128, 64)
    assert all(path.name == "a.nii.gz" or path.name.startswith(PARTIAL_PREFIX) for path in tmp_path.iterdir())


def test_a_small_disk_that_really_fills_up_leaves_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root; the limit on file size above tests the same path")
    try:
        noise = rng.integers(-1000, 1000, (64, 64, 64)).astype(np.int16)
        for name in ("a.nii", "a.nii.gz", "a.nrrd"):
            with pytest.raises(OutputError, match=rf"cannot write .*{name}: the disk is full"):
                write_volume(tmp_path / name, noise, np.eye(4))
        with pytest.raises(OutputError, match="500 MB are needed and 0 MB are free"):
            check_output(tmp_path / "a.seg.nrrd", expected_bytes=500_000_000)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
