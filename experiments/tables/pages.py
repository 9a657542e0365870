"""Reports as Markdown with its figures beside it, and as one file of HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from coded_jax.runs.workdir import make_folder, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem;
  font: 16px/1.55 system-ui, sans-serif; color: #1d2733; background: #fff; }
h1 { font-size: 1.7rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin-top: 2.4rem; padding-bottom: .25rem;
  border-bottom: 1px solid #d9dfe5; }
table { display: block; overflow-x: auto; border-collapse: collapse;
  font-size: .9rem; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th { background: #f1f4f7; text-align: left; font-weight: 600; }
th, td { padding: .3rem .7rem; border: 1px solid #d9dfe5; vertical-align: top; }
th:empty { display: none; }
th code { overflow-wrap: normal; }
td:first-child { white-space: nowrap; }
tr:nth-child(even) td { background: #fafbfc; }
code { font: .86em ui-monospace, monospace; background: #f1f4f7; padding: .1em .3em;
  border-radius: 3px; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
em { color: #5b6875; }
"""


class Page:
    """A report, part by part.

    Args:
      folder: where its files are written; made if need be.
      title: the heading.

    Raises:
      ValueError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, title: str) -> None:
        make_folder(folder, "output")
        self.folder, self.title = folder, title
        self._parts = [f"# {title}"]

    def add(self, *parts: str) -> None:
        """Appends paragraphs, tables or headings of Markdown; leaves out empty ones."""
        self._parts += [part for part in parts if part]

    def draw(
        self, name: str, title: str, make: Callable[[], Figure], caption: str = ""
    ) -> None:
        """Appends a figure, or a line that says why it cannot be made.

        Args:
          name: of its PNG.
          title: of what it shows.
          make: raises a ValueError, OSError or ImportError where it cannot.
          caption: stands below it.
        """
        try:
            make().savefig(self.folder / f"{name}.png", dpi=110)
        except (ValueError, OSError, ImportError) as error:
            self.add(f"*Left out ({title}): {error}*")
            return
        self.add(f"![{title}]({name}.png)", caption)

    def write(self) -> list[Path]:
        """Writes `report.md` and `report.html`, and returns their paths."""
        text = "\n\n".join(self._parts) + "\n"
        paths = [self.folder / f"report.{ending}" for ending in ("md", "html")]
        write_atomically(paths[0], text)
        write_atomically(paths[1], to_html(self.title, text, self.folder))
        return paths


def to_html(title: str, text: str, folder: Path) -> str:
    """Returns Markdown as one HTML file that holds its pictures.

    Args:
      title: of the page.
      text: Markdown.
      folder: of the pictures.

    Raises:
      ImportError: markdown-it-py is missing; the `plot` extra brings it.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise ImportError("reports need: pip install 'coded_jax[plot]'") from error
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(text)
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                picture = (folder / str(child.attrs["src"])).read_bytes()
                encoded = base64.b64encode(picture).decode()
                child.attrs["src"] = f"data:image/png;base64,{encoded}"
    body = reader.renderer.render(tokens, reader.options, {})
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )
