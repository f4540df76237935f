"""The panels, case by case, in the harness and in 3D Slicer; the cases are in WholeBodyCSS/Testing/Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import widget_hosts

pytestmark = [pytest.mark.scene, pytest.mark.timeout(600)]  # the first case of a file waits for all of them

CASES = [(file, case) for file in widget_hosts.case_files() for case in widget_hosts.cases_of(file)]


@pytest.mark.parametrize("host", widget_hosts.HOSTS)
@pytest.mark.parametrize(("file", "case"), CASES, ids=[case for _, case in CASES])
def test_case(host: str, file: Path, case: str) -> None:
    widget_hosts.check_case(host, file, case)
