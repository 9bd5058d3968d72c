"""Training: the loop, its schedule and reports, and checkpoints."""
