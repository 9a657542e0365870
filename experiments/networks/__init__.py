"""Whole networks whose stages are planned, beside those of `keras.applications`."""
