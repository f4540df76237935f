"""Runs test files and writes how each case ended: ``RunCases.py REPORT.json FILE ...``, in Slicer or the harness."""

import json
import sys
import time
import traceback
import unittest
from pathlib import Path


class ReportingResult(unittest.TextTestResult):
    """Remembers status, text and duration of each case."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.cases = {}

    def startTest(self, test):
        super().startTest(test)
        self._began_s = time.monotonic()
        self._write(test, "passed", "")

    def stopTest(self, test):
        self.cases[_name(test)]["seconds"] = round(time.monotonic() - self._began_s, 3)
        super().stopTest(test)

    def addError(self, test, error):
        super().addError(test, error)
        self._write(test, "failed", self._exc_info_to_string(error, test))

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self._write(test, "failed", self._exc_info_to_string(error, test))

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self._write(test, "failed", f"{subtest}\n{self._exc_info_to_string(error, test)}")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._write(test, "skipped", reason)

    def _write(self, test, status, text):
        before = self.cases.get(_name(test), {})
        if before.get("status") == "failed":
            text = f"{before['text']}\n{text}"
        self.cases[_name(test)] = {"status": status, "text": text}


def _name(test):
    return ".".join(test.id().split(".")[-2:])


def run(report, files):
    """Run every case of ``files``; 0 if all passed."""
    suite = unittest.TestSuite()
    for file in files:
        sys.path.insert(0, str(Path(file).resolve().parent))
        suite.addTests(unittest.defaultTestLoader.loadTestsFromName(Path(file).stem))
    result = unittest.TextTestRunner(verbosity=2, resultclass=ReportingResult).run(suite)
    Path(report).write_text(json.dumps(result.cases, indent=1), encoding="utf-8")
    return 0 if result.wasSuccessful() else 1


def main():
    """Slicer keeps running after a script that raised, so nothing may get out of here."""
    try:
        code = run(sys.argv[1], sys.argv[2:])
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        code = 1
    import slicer

    slicer.util.exit(code)


if __name__ == "__main__":
    main()
