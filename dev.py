"""What a developer runs, on any system: ``python3 dev.py demo``, ``test``, ``lint`` ... The Makefile calls this file.

Standard library only, because it makes the environment that everything else runs in: ``.venv`` beside this file, made
once, reused while ``pyproject.toml``, ``constraints.txt`` and the interpreter stay the same, made anew when broken.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
DEMO = ROOT / "demo"
CASES = ROOT / "WholeBodyCSS" / "Testing" / "Python"

RUN_EXTRAS: tuple[str, ...] = ()
TEST_EXTRAS = ("test", "train", "openvino", "dicomseg")
SCENE_EXTRAS = (*TEST_EXTRAS, "scene")
RUN_MODULES = ("wbcss", "torch", "SimpleITK", "safetensors")
EXTRA_MODULES = {
    "test": ("pytest", "xdist", "mypy", "ruff", "importlinter"),
    "train": ("monai",),
    "openvino": ("openvino",),
    "dicomseg": ("highdicom",),
    "scene": ("slicer", "PySide6"),
}
"""Modules that must be found in a sound environment, without and with each extra."""


def main() -> int:
    """Run one command of the table at the end of this file; the exit code is that of the first step that failed."""
    if sys.version_info < (3, 10):  # noqa: UP036 -- the one file that an older Python gets to see
        sys.stderr.write(
            f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}; try: make PYTHON=python3.12\n"
        )
        return 2
    parser = argparse.ArgumentParser(description="Tasks of a developer of WholeBodyCSS.")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="passed on, as in: dev.py test -k tiling")
    args = parser.parse_args()
    try:
        COMMANDS[args.command](args.rest)
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 1
    except KeyboardInterrupt:
        return 130
    return 0


def demo(rest: list[str]) -> None:
    """Draw a synthetic abdomen, segment it, print its organs and compare them with those that were drawn."""
    prepare(RUN_EXTRAS)
    DEMO.mkdir(exist_ok=True)
    volume, drawn, organs = (DEMO / f"abdomen{end}" for end in (".nii.gz", "-labels.nii.gz", "-organs.seg.nrrd"))
    run(BIN / "wbcss", "phantom", volume, "--region", "abdomen", "--seed", "1")
    run(BIN / "wbcss", "segment", volume, "-o", organs, "--statistics", "--preview", "--reference", drawn, *rest)
    say(f"\nThe files are in {DEMO}:")
    for path in sorted(DEMO.iterdir()):
        say(f"  {path.name:36} {path.stat().st_size / 1024:8.0f} KB")
    say(f"Open {volume.name} and {organs.name} in 3D Slicer, or look at the preview picture.")
    say("Dice compares with the shapes drawn. The model never saw such plain shapes: it says nothing about patients.")


def test(rest: list[str]) -> None:
    """The default tier on two processes, one thread each."""
    pytest("-n", "2", *rest)


def test_slow(rest: list[str]) -> None:
    """What takes more than a few seconds a test; those that measure times come last, and alone."""
    pytest("-m", "slow and not timing and not data and not gpu", "-n", "2", "--timeout", "900", *rest)
    pytest("-m", "timing and not gpu", "--timeout", "900", *rest)


def test_data(rest: list[str]) -> None:
    """Tests on the real scans of ../shared/data; one process, since each may take gigabytes."""
    pytest("-m", "data and not gpu", "--timeout", "1500", *rest, extras=SCENE_EXTRAS)


def test_scene(rest: list[str]) -> None:
    """The Slicer room on the real MRML scene of the slicer-core wheel (Python 3.11 or 3.12)."""
    pytest("-m", "scene", *rest, extras=SCENE_EXTRAS)


def lint(rest: list[str]) -> None:
    """Style and formatting; ``--fix`` mends what can be mended."""
    prepare(TEST_EXTRAS)
    run(BIN / "ruff", "check", *rest)
    run(BIN / "ruff", "format", *([] if "--fix" in rest else ["--check"]))


def types(rest: list[str]) -> None:
    """Static types, strict."""
    prepare(TEST_EXTRAS)
    run(BIN / "mypy", *rest)


def imports(rest: list[str]) -> None:
    """Which room may import which."""
    prepare(TEST_EXTRAS)
    run(BIN / "lint-imports", *rest)


def bench(rest: list[str]) -> None:
    """The benchmark table. The peers it measures against go into an environment of their own beside the checkout."""
    run("sh", ROOT / "Testing" / "benchmarks" / "setup.sh", env={**os.environ, "PYTHON": sys.executable})
    run(ROOT.parent / "bench-venv" / "bin" / "python", ROOT / "Testing" / "benchmarks" / "run.py", *rest)


def lists(_rest: list[str]) -> None:
    """Write the lists of files for CMake anew, after files of the module or its cases came or went."""
    module = ROOT / "WholeBodyCSS"
    scripts = ["WholeBodyCSS.py", *files_of(module, "WholeBodyCSSLib/**/*.py"), *files_of(module, "wbcss/**/*.py")]
    text = (module / "CMakeLists.txt").read_text(encoding="utf-8")
    for name, listed in (("SCRIPTS", scripts), ("RESOURCES", files_of(module, "Resources/**/*"))):
        begin = text.index(f"set(MODULE_PYTHON_{name}\n")
        end = text.index(")", begin)
        text = "".join((text[:begin], f"set(MODULE_PYTHON_{name}\n", *(f"  {file}\n" for file in listed), text[end:]))
    (module / "CMakeLists.txt").write_text(text, encoding="utf-8", newline="\n")
    cases = "".join(f"slicer_add_python_unittest(SCRIPT {file.name})\n" for file in sorted(CASES.glob("*Test.py")))
    text = f"# Each file of cases also runs outside Slicer: Testing/scene/test_widgets.py.\n{cases}"
    (CASES / "CMakeLists.txt").write_text(text, encoding="utf-8", newline="\n")


def screenshots(rest: list[str]) -> None:
    """Take the pictures of the README from the tests of the panels, and draw those of the sample scans."""
    pictures = ROOT / "Resources" / "Screenshots"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    wanted = set(re.findall(r"Resources/Screenshots/([\w-]+\.png)", readme)) - {"preview.png"}
    with tempfile.TemporaryDirectory() as folder:
        taken = {"WBCSS_SCREENSHOTS": folder}
        cases = ("-m", "scene", "Testing/scene/test_widgets.py", "-k", "harness")
        pytest(*cases, *rest, extras=SCENE_EXTRAS, env=taken)
        missing = [name for name in sorted(wanted) if not (Path(folder) / name).is_file()]
        if missing:
            sys.exit(f"no case of WholeBodyCSS/Testing/Python takes {', '.join(missing)}")
        for name in sorted(wanted):
            shutil.copyfile(Path(folder) / name, pictures / name)
    run(PYTHON, ROOT / "Testing" / "draw_thumbnails.py", env={**os.environ, "PYTHONPATH": str(ROOT / "WholeBodyCSS")})


def files_of(folder: Path, pattern: str) -> list[str]:
    """Files of ``folder`` that match, sorted, without those that Python or an editor left."""
    found = [path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")]
    return sorted(path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts)


def clean(_rest: list[str]) -> None:
    """Remove what was generated here, except the environment."""
    for name in ("demo", "build", "dist", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache"):
        shutil.rmtree(ROOT / name, ignore_errors=True)
    for cache in [p for room in ("WholeBodyCSS", "Training", "Testing") for p in (ROOT / room).rglob("__pycache__")]:
        shutil.rmtree(cache, ignore_errors=True)


def pytest(*arguments: str, extras: tuple[str, ...] = TEST_EXTRAS, env: dict[str, str] | None = None) -> None:
    """Run pytest with one thread per process: several processes that each take all cores only wait for each other."""
    prepare(extras)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    run(PYTHON, "-m", "pytest", *arguments, env={**os.environ, **threads, **(env or {})})


def prepare(extras: tuple[str, ...]) -> None:
    """Make sure that ``.venv`` works and holds the product with ``extras``. Asks the package index only if needed."""
    stamp = VENV / f"wbcss-{'-'.join(extras) or 'run'}.stamp"
    wanted = fingerprint(extras)
    starts = PYTHON.exists() and answers("-m", "pip", "--version")
    if starts and stamp.is_file() and stamp.read_text() == wanted and is_sound(extras):
        return
    if not starts:
        create()
    stamp.unlink(missing_ok=True)
    what = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    say(f"Installing into {VENV} (the first time takes some minutes) ...")
    run(PYTHON, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", "-e", what)
    if not is_sound(extras):
        sys.exit(f"{VENV} is incomplete although pip reported success; delete it and try again")
    stamp.write_text(wanted)


def create() -> None:
    """Make ``.venv``, replacing a broken one. Works without ensurepip, which some systems package apart."""
    if VENV.is_symlink() or (VENV.exists() and not (VENV / "pyvenv.cfg").is_file()):
        sys.exit(f"{VENV} exists but is no virtual environment; move it away and try again")
    say(f"Making {VENV} with Python {sys.version.split()[0]} ...")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True).returncode == 0:
        return
    run(sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)
    run(sys.executable, "-m", "pip", "--python", PYTHON, "install", "--quiet", "pip")


def fingerprint(extras: tuple[str, ...]) -> str:
    """Changes when the environment must be installed again. The folder is part of it: scripts hold absolute paths."""
    digest = hashlib.sha256()
    for part in (ROOT / "pyproject.toml", ROOT / "constraints.txt"):
        digest.update(part.read_bytes())
    digest.update(f"{ROOT} {sys.version} {extras}".encode())
    return digest.hexdigest()


def is_sound(extras: tuple[str, ...]) -> bool:
    """Whether the modules of ``extras`` are there and ``wbcss`` is the one of this folder."""
    modules = {*RUN_MODULES, *(module for extra in extras for module in EXTRA_MODULES[extra])}
    code = (
        "import importlib.util as u, sys\n"
        "found = [u.find_spec(name) for name in sys.argv[2:]]\n"
        "sys.exit(not (all(found) and u.find_spec('wbcss').origin.startswith(sys.argv[1])))"
    )
    return answers("-c", code, str(ROOT), *sorted(modules))


def answers(*arguments: str) -> bool:
    """Whether the environment's interpreter runs ``arguments`` without complaint."""
    try:
        return subprocess.run([str(PYTHON), *arguments], capture_output=True, cwd=VENV).returncode == 0
    except OSError:
        return False


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a step from the project's folder; its failure ends the command."""
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, env=env)


def say(text: str) -> None:
    """One line for the developer, in order with the output of the steps."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


COMMANDS = {
    "demo": demo,
    "test": test,
    "test-slow": test_slow,
    "test-data": test_data,
    "test-scene": test_scene,
    "lint": lint,
    "types": types,
    "imports": imports,
    "bench": bench,
    "lists": lists,
    "screenshots": screenshots,
    "clean": clean,
}

if __name__ == "__main__":
    sys.exit(main())
