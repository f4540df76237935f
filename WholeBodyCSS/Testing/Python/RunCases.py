"""Runs test files and writes how each case ended: ``RunCases.py REPORT.json FILE ...``, in Slicer or the harness."""

import json
import sys
import time
import traceback
import unittest
from pathlib import Path

WORSE = ("passed", "skipped", "failed")


class ReportingResult(unittest.TextTestResult):
    """Writes status, text and duration of each case as it goes, so that a crash leaves a report, too."""

    report = None

    def startTest(self, test):
        super().startTest(test)
        self._began_s = time.monotonic()
        self._write(test, "failed", "the process died during this case")

    def stopTest(self, test):
        self.cases[_name(test)]["seconds"] = round(time.monotonic() - self._began_s, 3)
        self._save()
        super().stopTest(test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._write(test, "passed", "")

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
        name = _name(test)
        before = self.cases.get(name)
        if before and before["ended"]:  # several subtests, or the case and its cleanup
            text, status = f"{before['text']}\n{text}".strip(), max(before["status"], status, key=WORSE.index)
        ended = before is not None
        self.cases[name] = {"status": status, "text": text, "ended": ended}
        self._save()

    def _save(self):
        self.report.write_text(json.dumps(self.cases, indent=1), encoding="utf-8")

    @property
    def cases(self):
        return self.__dict__.setdefault("_cases", {})


def _name(test):
    return ".".join(test.id().split(".")[-2:])


def run(report, files):
    """Run every case of ``files``; 0 if all passed."""
    suite = unittest.TestSuite()
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    sys.path.append(str(here.parents[2] / "Testing"))  # tiny models and scans, where the checkout is whole
    for file in files:
        sys.path.insert(0, str(Path(file).resolve().parent))
        suite.addTests(unittest.defaultTestLoader.loadTestsFromName(Path(file).stem))
    ReportingResult.report = Path(report)
    result = unittest.TextTestRunner(verbosity=2, resultclass=ReportingResult).run(suite)
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
