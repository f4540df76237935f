"""Fixtures of the Slicer room's tests."""

from __future__ import annotations

from typing import Any

import mrml_nodes
import pytest


@pytest.fixture
def slicer() -> Any:
    """The slicer package over a new scene, with what the room uses of the application."""
    return mrml_nodes.new_scene()
