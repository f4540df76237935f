"""Which small decoder serves a task best: a measured cost, a differentiable search, and the width sweep beside it."""
