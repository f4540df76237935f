"""Takes out of a text who and where it was written: home folder, login name, name of the computer."""

from __future__ import annotations

import getpass
import platform
import re
from pathlib import Path

_END = r"(?=$|[/\\\s,;:)'\"])"
_SHORTEST_HOST = 3
"""A computer that is called "pc" cannot be told from the word."""


def hide_user(text: str) -> str:
    """``text`` with the home folder as ``~``, and without login name in paths and name of the computer."""
    home = Path.home()
    for place in {str(home), str(home.resolve()), home.as_posix()} - {"/"}:
        text = re.sub(re.escape(place) + _END, "~", text)
    host = platform.node().partition(".")[0]
    if len(host) >= _SHORTEST_HOST:
        text = re.sub(rf"(?<![\w-]){re.escape(host)}(?![\w-])", "HOST", text, flags=re.IGNORECASE)
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(name)}{_END}", "USER", text)
