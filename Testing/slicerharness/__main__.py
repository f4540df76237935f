"""``python -m slicerharness SCRIPT [ARGUMENT ...]``: run a script with the module loaded, as Slicer would."""

from __future__ import annotations

import logging
import os
import runpy
import sys
import traceback
from pathlib import Path

CANNOT_START, SWALLOWED = 70, 71
"""Exit codes: Qt or slicer-core does not load; the script ended well but a slot, observer or timer raised."""


def main() -> int:
    """The script's exit code, or one of those above with the reason as the last line of stderr."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        from . import errors, install, load_module

        application = install().app
    except ImportError as error:
        sys.stderr.write(f"the harness cannot start: {error}\n")
        return CANNOT_START
    script, sys.argv = Path(sys.argv[1]).resolve(), sys.argv[1:]
    sys.path.insert(0, str(script.parent))
    try:
        load_module()
        runpy.run_path(str(script), run_name="__main__")
        application.moduleManager().unload()
    except SystemExit as ended:
        if ended.code:
            return ended.code if isinstance(ended.code, int) else 1
    finally:
        application.remove_temporary_files()
    if application.exit_code:
        return application.exit_code
    if errors:
        last = errors[-1].splitlines()[-1]
        sys.stderr.write(f"{len(errors)} exceptions were swallowed by Qt or VTK; the last: {last}\n")
        return SWALLOWED
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except BaseException:  # noqa: BLE001 -- whatever it is: os._exit would swallow it
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Qt, VTK and Python would tear each other down in an order that crashes
