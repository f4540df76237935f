"""Offline continual-training backend. Depends on the engine; the engine never depends on it."""
