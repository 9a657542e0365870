"""Makes the picture of the page: a drawn digit, one of whose pieces was decoded.

    python experiments/page_picture.py --workdir=runs/quickstart --output=docs/page.png

It serves a finished run with devices of this host as workers, draws in a headless
Chromium, and kills the first worker. `--width` and `--dark` make others to look at.
"""

from __future__ import annotations

import functools
import os

import headless
from absl import flags
from rich.console import Console

from coded_jax.checks import require
from coded_jax.cli.command_line import command, run
from coded_jax.service import serve
from coded_jax.service.web import app, page, server
from coded_jax.service.web.config import WebConfig
from coded_jax.service.web.demo import Demo

WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "of a finished run")
OUTPUT = flags.DEFINE_string("output", "runs/page.png", "the picture")
WIDTH = flags.DEFINE_integer("width", 1200, "of the page, in pixels")
DARK = flags.DEFINE_bool("dark", False, "as by those who prefer dark pages")

THREE = [(0.33, 0.27), (0.42, 0.18), (0.58, 0.18), (0.66, 0.28), (0.6, 0.42)]
THREE += [(0.46, 0.48), (0.62, 0.53), (0.68, 0.67), (0.58, 0.8), (0.42, 0.82)]
THREE += [(0.31, 0.74)]
"""Points of a stroke, in parts of the board."""


def shoot(url: str) -> None:
    """Takes the picture."""
    from PIL import Image
    from playwright.sync_api import expect

    with headless.browser() as launched:
        view = launched.new_page(
            viewport={"width": WIDTH.value, "height": 800},
            color_scheme="dark" if DARK.value else "light",
        )
        view.goto(url)
        expect(view.locator("#samples button")).not_to_have_count(0)
        headless.draw(view, THREE)
        again = view.get_by_label("Ask again every second")
        again.check()
        for _ in range(8):  # so that the chart has a line
            view.wait_for_event("response", lambda answer: "predict" in answer.url)
        view.get_by_role("button", name="Kill worker 0").click()
        expect(view.locator("#decoded")).to_contain_text("Piece 0 was decoded")
        again.uncheck()
        view.get_by_role("heading", name="Answers").click()  # no button has a ring
        view.screenshot(path=OUTPUT.value, full_page=True)
    with Image.open(OUTPUT.value) as picture:  # a third of the bytes
        few = picture.convert("RGB").quantize(
            method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
        )
    few.save(OUTPUT.value, optimize=True)


@command()
def main(argv: list[str]) -> None:
    require("chromium", None, headless.chromium() is not None, headless.ACCEPTED)
    with serve(WORKDIR.value, "local") as service:
        demo = Demo(service, restart=60)
        pages = functools.partial(page.routes, service, demo, False)
        front = app.create_app(service, pages=pages)
        port, close = server.listen(front, WebConfig(port=0))
        try:
            shoot(f"http://127.0.0.1:{port}/")
        finally:
            close()
    kilobytes = os.path.getsize(OUTPUT.value) / 1e3
    Console().print(f"{OUTPUT.value}: {kilobytes:.0f} kB", highlight=False)


if __name__ == "__main__":
    run(main)
