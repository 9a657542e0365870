"""A browser without a window, in which the page is tested."""

from __future__ import annotations

import contextlib
import os
import shutil

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ACCEPTED = f"one of {CHROMIUM} on the PATH"


def chromium() -> str | None:
    """Returns the path of a browser; None if none of `CHROMIUM` is installed."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextlib.contextmanager
def browser():
    """Yields a headless browser of playwright."""
    from playwright.sync_api import sync_playwright

    root = os.geteuid() == 0  # for whom Chromium has no sandbox
    arguments = ["--no-sandbox"] if root else []
    with sync_playwright() as started:
        launched = started.chromium.launch(executable_path=chromium(), args=arguments)
        yield launched
        launched.close()


def draw(view, points: list[tuple[float, float]]) -> None:
    """Draws a stroke with the mouse, and returns when it is answered."""
    box = view.locator("#board.draws").bounding_box()
    x, y = ([box[a] + p[i] * box["width"] for p in points] for i, a in enumerate("xy"))
    with view.expect_response("**/predict"):
        view.mouse.move(x[0], y[0])
        view.mouse.down()
        for place in zip(x, y, strict=True):
            view.mouse.move(*place, steps=5)
        view.mouse.up()
