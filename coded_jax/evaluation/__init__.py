"""Evaluation: every erasure pattern on every image, confidence, spoiled answers."""
