"""Print the table of broken case folders as Markdown: ``python Testing/training/broken_cases_table.py``.

Every row is made and checked now; nothing in the table is remembered from an earlier run.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "WholeBodyCSS"), str(HERE.parents[1] / "Training")]

from broken_cases import BROKEN_CASES, BrokenCases  # noqa: E402

from wbcss_training.cli.main import main  # noqa: E402


def row(broken: BrokenCases) -> str:
    """One line of the table, with the folder of the run taken out of the message."""
    with tempfile.TemporaryDirectory() as name:
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            code = main(["check", "--cases", *(str(argument) for argument in broken.make(Path(name)))])
        message = told.getvalue().splitlines()[-1].removeprefix("wbcss-train: ").replace(f"{name}/", "")
    return f"| {broken.what} | {code} | {broken.kind or '(list)'} | {message.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    sys.stdout.write("| cases | exit code | kind | message |\n|-|-|-|-|\n")
    for each in BROKEN_CASES:
        sys.stdout.write(row(each) + "\n")
