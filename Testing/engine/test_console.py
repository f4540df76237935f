"""What a person at a terminal sees."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest

from wbcss.console import ProgressLine, duration, stop_on_signals, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "72")
    return Terminal()


def test_the_line_shows_bar_percent_stage_and_remaining_time(terminal: Terminal) -> None:
    ProgressLine(terminal)(0.5, "network", 61.0)
    assert terminal.getvalue() == "\r" + "[##############--------------]  50 %  network  1 min 01 s left".ljust(71)


def test_the_line_tells_no_remaining_time_before_it_is_known(terminal: Terminal) -> None:
    ProgressLine(terminal, title="2/3 chest")(0.0, "read", None)
    assert terminal.getvalue().rstrip() == "\r2/3 chest  [----------------------------]   0 %  read"


def test_the_line_never_wraps(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    ProgressLine(terminal, title="a very long name of a scan")(0.5, "network", 10.0)
    assert len(terminal.getvalue().lstrip("\r")) == 29


def test_a_closed_line_leaves_the_terminal_clean(terminal: Terminal) -> None:
    with ProgressLine(terminal) as line:
        line(0.5, "network", None)
    assert terminal.getvalue().endswith("\r" + " " * 71 + "\r")


def test_nothing_is_drawn_into_a_file_or_when_quiet(terminal: Terminal) -> None:
    log = io.StringIO()
    with ProgressLine(log) as line:
        line(0.5, "network", None)
    with ProgressLine(terminal, shown=False) as line:
        line(0.5, "network", None)
    assert log.getvalue() == terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (4200, "1 h 10 min")],
)
def test_a_duration_is_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    rows = [("liver", "1500.0", "-"), ("gallbladder", "20.5", "0.91")]
    assert table(("organ", "ml", "dice"), rows) == (
        "organ            ml  dice\n-----------  ------  ----\nliver        1500.0     -\ngallbladder    20.5  0.91\n"
    )


def test_a_table_without_rows_is_its_header() -> None:
    assert table(("organ", "ml"), []) == "organ  ml\n-----  --\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_raises_the_flag_and_the_second_breaks_off(number: int) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stopped:
        assert not stopped()
        os.kill(os.getpid(), number)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_signals_are_left_alone_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[bool] = []

    def job() -> None:
        with stop_on_signals() as stopped:
            seen.append(stopped() or signal.getsignal(signal.SIGTERM) is not before)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert seen == [False]
