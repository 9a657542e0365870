"""Training: losses, tasks, the step, the resumable loop, checkpoints."""
