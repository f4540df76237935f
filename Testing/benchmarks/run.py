"""Measure the product against its peers: ``python Testing/benchmarks/run.py [--scale full] [--rows stub flat ...]``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rows import ROWS, SCALES, Found, Row
from runner import JobError, Runner, default_python
from table import to_json, to_markdown

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen rows; 0 if every job ran (goals may be missed), 2 for a wrong argument, 3 if a job failed."""
    args = _parser().parse_args(arguments)
    rows = _chosen(args.rows, slow=args.slow)
    if args.list:
        sys.stdout.writelines(f"{row.name:18} {row.text}{' (slow)' if row.slow else ''}\n" for row in ROWS)
        return 0
    if not rows:
        sys.stderr.write(f"--rows must begin like one of {', '.join(row.name for row in ROWS)}, got {args.rows}\n")
        return 2
    runner = Runner(args.out.resolve(), _interpreter(args.python), _say, fresh=args.fresh)
    found: dict[str, Found] = {}
    failed = False
    for row in rows:
        try:
            found[row.name] = row.measure(runner, SCALES[args.scale])
        except JobError as error:
            failed = True
            found[row.name] = Found(missing=(f"{row.name}: a run failed ({error})",))
        _write(args.out, found, args.scale)
    _say("\n" + to_markdown(found, args.scale))
    return 3 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the product against its peers; prints tables.")
    parser.add_argument("--rows", nargs="+", help="rows to measure, by name or its beginning (default: all but slow)")
    parser.add_argument("--slow", action="store_true", help="the slow rows too")
    parser.add_argument("--scale", choices=SCALES, default="quick", help="size of the stubbed runs (default: quick)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmarks", help="folder for results")
    parser.add_argument("--python", default=default_python(), help="interpreter that has the peers (see setup.sh)")
    parser.add_argument("--fresh", action="store_true", help="measure again what is known already")
    parser.add_argument("--list", action="store_true", help="list the rows and stop")
    return parser


def _chosen(names: Sequence[str] | None, *, slow: bool) -> list[Row]:
    if names is None:
        return [row for row in ROWS if slow or not row.slow]
    return [row for row in ROWS if any(row.name.startswith(name) for name in names)]


def _interpreter(name: str) -> str:
    """An absolute path, since jobs run in a folder of their own; links are kept, for they tell a venv."""
    return str(Path(shutil.which(name) or name).absolute())


def _write(folder: Path, found: dict[str, Found], scale: str) -> None:
    """After every row, so that an interrupted run shows what it has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(to_json(found, scale), indent=1))
    (folder / "results.md").write_text(to_markdown(found, scale))


def _say(text: str) -> None:
    stamp = "" if "\n" in text else time.strftime("%H:%M:%S ")
    sys.stdout.write(f"{stamp}{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
