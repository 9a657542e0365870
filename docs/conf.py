"""The documentation: Sphinx, MyST and MyST-NB, the book theme. No network is needed.

nox -s docs    builds it into site/, with every warning an error
nox -s links   asks every outer link whether it is there
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
import shutil
import sys
from pathlib import Path

import jax
from absl import flags
from flax import linen as nn

import coded_jax
from coded_jax import settings
from coded_jax.cli import commands

HERE = Path(__file__).parent

project = "coded_jax"
author = "The coded_jax authors"
copyright = author
version = release = coded_jax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]
default_role = "code"  # single back quotes in docstrings

# Pages and notebooks.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # their outputs are stored
nb_ipywidgets_js = {}  # no script from elsewhere
nb_merge_streams = True

# The reference.
autosummary_generate = True
autosummary_context = {"face": coded_jax._MODULES}
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
# The fields of a record are the arguments that make it.
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
highlight_language = "text"  # of what docstrings indent
# Of other libraries there is no inventory at hand: their types are names alone.
nitpick_ignore_regex = [("py:.*", r"(?!coded_jax\.).*")]

# Looks.
html_theme = "sphinx_book_theme"
html_title = "coded_jax"
html_static_path = ["_static"]
html_css_files = ["coded_jax.css"]
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
}
html_copy_source = False
html_last_updated_fmt = None

# Where the project will be published, which it is not yet.
linkcheck_ignore = [
    r"https://github\.com/coded-jax/",
    r"https://colab\.research\.google\.com/github/coded-jax/",
    r"http://127\.0\.0\.1",
]
linkcheck_anchors = False


def show_tables(app, docname, source):
    """Shows each CSV file that a line links, collapsed, below that line."""
    shown = (
        r"\1\n\n:::{dropdown} The table\n```{csv-table}\n:file: \2\n:header-rows: 1\n"
        r":class: long-table\n```\n:::"
    )
    source[0] = re.sub(r"(?m)^(.*\[(\S+\.csv)\]\(\2\))$", shown, source[0])


def copy_notebooks() -> None:
    """Puts the notebooks beside the pages, where Sphinx finds them."""
    for path in (HERE.parent / "colab").glob("*.ipynb"):
        target = HERE / "notebooks" / path.name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            shutil.copyfile(path, target)


def settings_of(record: type) -> dict[str, str]:
    """Returns meaning, accepted values and default of each setting of a record."""
    declared = settings.settings(record) if dataclasses.is_dataclass(record) else ()
    texts = {}
    for one in declared:
        default = f"`{one.shown_default}`" if one.shown_default else "none"
        accepted = one.accepted_text.rstrip(",")
        texts[one.name] = f"{one.help}. Accepted: {accepted}. Default: {default}."
    return texts


def comments_of(record: type) -> dict[str, str]:
    """Returns the comment that stands behind each field of a record."""
    if record.__module__ == "coded_jax":  # where its source is not found
        return {}
    lines = inspect.getsource(record).splitlines()
    fields = (re.match(r"    (\w+): .+?  # (.+)", line) for line in lines)
    return dict(match.groups() for match in fields if match)


def describe_fields(app, what, name, value, options, lines):
    """Adds to the docstring of a record the fields that it does not have."""
    record = dataclasses.is_dataclass(value) or hasattr(value, "_fields")
    if what == "class" and record and "Attributes:" not in lines:
        fields = settings_of(value) or comments_of(value)
        if fields:
            lines += ["", "Attributes:"]
            lines += [f"  {field}: {text}" for field, text in fields.items()]


def show_code(app, what, name, value, options, lines):
    """Makes a literal block of what a module's docstring indents by four spaces."""
    if what == "module":
        text = re.sub(r"(?m)^(?=\S)(.*\n)\n(?= {4}\S)", r"\1\n::\n\n", "\n".join(lines))
        lines[:] = text.split("\n")


def keep_colons(app, what, name, value, options, lines):
    """Keeps napoleon from taking what stands before a colon for a type.

    Of what is returned, and of data, it expects `type: text`; here they get no type.
    """
    if what in ("attribute", "data", "property") and lines:
        lines[0] = f": {lines[0]}"
    for i, line in enumerate(lines[:-1]):
        if line.strip() in ("Returns:", "Yields:"):
            lines[i + 1] = re.sub(r"^( *)", r"\1: ", lines[i + 1])


def skip_member(app, what, name, value, skip, options):
    """Leaves out fields of a NamedTuple, which their class describes."""
    return skip or type(value).__name__ == "_tuplegetter"


def shorten_signature(app, what, name, value, options, signature, returned):
    """Takes what Flax adds to the fields of a network out of its signature."""
    if what == "class" and issubclass(value, nn.Module) and signature:
        signature = re.sub(r", parent: .*\)$", ")", signature)
    return signature, returned


def show_public_face() -> None:
    """Makes what is in the public face known as `coded_jax.NAME` alone."""
    for name in coded_jax._MODULES:
        getattr(coded_jax, name).__module__ = "coded_jax"


def show_modules() -> None:
    """Makes a module known by its name where a package has a function of that name."""
    for module in pkgutil.walk_packages(coded_jax.__path__, "coded_jax."):
        package, _, name = module.name.rpartition(".")
        if package != "coded_jax":
            child = importlib.import_module(module.name)
            setattr(sys.modules[package], name, child)


def import_commands() -> None:
    """Imports all commands, of which a process has one, since they share flags."""
    for command in pkgutil.iter_modules(commands.__path__):
        before = set(flags.FLAGS)
        importlib.import_module(f"{commands.__name__}.{command.name}")
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)


def setup(app):
    import_commands()
    show_modules()
    show_public_face()
    copy_notebooks()
    app.connect("source-read", show_tables)
    # Before napoleon, whose priority is 500.
    app.connect("autodoc-process-docstring", describe_fields, priority=400)
    app.connect("autodoc-process-docstring", show_code, priority=400)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-signature", shorten_signature)
    jax.Array.__qualname__ = "Array"  # and not with where it is made
