"""Evaluation: every erasure pattern on every image, and confidence."""
