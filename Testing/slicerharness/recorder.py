"""What the harness cannot do but a test wants to see: pages opened, sample data registered, status messages shown."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Recorder:
    """Filled by the stand-ins; emptied by a test that wants to start anew."""

    opened_urls: list[str] = field(default_factory=list)
    selected_modules: list[str] = field(default_factory=list)
    status_messages: list[str] = field(default_factory=list)
    layouts: list[int] = field(default_factory=list)


recorded = Recorder()
