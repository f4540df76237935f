"""How large and how fast a model is: every decoder as published and as it was full, and all against the goals."""
