"""Print the table of bad inputs as Markdown: ``python Testing/engine/bad_inputs_table.py``.

Every row is made and run now; nothing in the table is remembered from an earlier run.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "WholeBodyCSS")]

from bad_inputs import BAD_INPUTS, BadInput, Place, applies  # noqa: E402

from wbcss.cli.main import main  # noqa: E402
from wbcss.registry import REGISTRY_VARIABLE  # noqa: E402


def row(bad: BadInput) -> str:
    """One line of the table, with the folder of the run taken out of the message."""
    if not applies(bad):
        return f"| {bad.what} | {bad.code} | (cannot be tried as root) |"
    with tempfile.TemporaryDirectory() as name:
        place = Place.furnish(Path(name))
        os.environ[REGISTRY_VARIABLE] = str(place / "registry")
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            code = main(["segment", *(str(argument) for argument in bad.make(place))])
        message = told.getvalue().strip().removeprefix("wbcss: ").replace(f"{name}/", "").replace(name, ".")
    return f"| {bad.what} | {code} | {message.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    sys.stdout.write("| input | exit code | message |\n|-|-|-|\n")
    for bad in BAD_INPUTS:
        sys.stdout.write(row(bad) + "\n")
