"""Nothing leaves the machine: libraries that report their use are kept from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wbcss.backend_openvino import is_installed

ROOM = Path(__file__).resolve().parents[2] / "WholeBodyCSS"

IMPORT = """
import multiprocessing, socket, sys
def refuse(*args, **named):
    print("REPORTED", args)
    raise SystemExit(9)
socket.socket.connect = multiprocessing.Process.start = refuse
from wbcss.backend_openvino import load_openvino
openvino = load_openvino()
import openvino.tools.ovc.telemetry_utils as reporting
print(openvino.__version__, reporting.tm.__name__)
"""


def test_openvino_is_imported_without_its_telemetry() -> None:
    if not is_installed():
        pytest.skip("OpenVINO is optional and not installed here")
    process = subprocess.run(
        [sys.executable, "-c", IMPORT],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOM)},
    )
    assert process.returncode == 0, process.stdout + process.stderr
    assert "REPORTED" not in process.stdout
    assert process.stdout.split()[1] == "openvino.tools.ovc.telemetry_stub"
