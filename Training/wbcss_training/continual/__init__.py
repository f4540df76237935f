"""Learning tasks one after another: the continually trained encoder, published baselines, and their benchmark."""
