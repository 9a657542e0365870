"""Processes of their own that need not wait for an interpreter and its imports.

A server imports JAX once, and each process is a fork of it, with flags, signals, output
and an exit status of its own. What JAX reads as it is imported and what an interpreter
does at its exit are those of the server: tests of them start an interpreter.
"""

import contextlib
import importlib
import multiprocessing
import os
import pathlib
import runpy
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import jax

ROOT = pathlib.Path(__file__).parents[1]
IMPORTED = [
    "absl.app",
    "coded_jax.report.run_tables",
    "coded_jax.runs.experiment",
    "coded_jax.service.studies.latency_study",
    "coded_jax.runs.coded_model",
    "matplotlib.figure",
]
forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(IMPORTED)


class Done(NamedTuple):
    """As of `subprocess.run`."""

    returncode: int
    stdout: str
    stderr: str


class Script:
    """A script that runs.

    Args:
      path: of its file, in the root of the repository.
      arguments: of its command line.
      folder: in which it runs.
    """

    def __init__(self, path: str, *arguments: object, folder: pathlib.Path = ROOT):
        self._files = [tempfile.NamedTemporaryFile("r+") for _ in range(2)]
        outputs = [file.name for file in self._files]
        command = [str(ROOT / path), *map(str, arguments)]
        run_arguments = outputs, command, dict(os.environ), folder
        self.process = forks.Process(target=_run, args=run_arguments)
        self.process.start()

    def wait(self, timeout: float = 900) -> Done:
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"{timeout} s, and so far {self._files[1].read()}")
        return Done(self.process.exitcode, *(file.read() for file in self._files))


def run_script(name: str, *arguments: object) -> Done:
    """Runs `experiments/<name>.py` in the root of the repository, until it ends."""
    return Script(f"experiments/{name}.py", *arguments).wait()


def run_command(*arguments: object, folder: pathlib.Path = ROOT) -> Done:
    """Runs `python -m coded_jax` in a folder, until it ends."""
    return Script("coded_jax/__main__.py", *arguments, folder=folder).wait()


@contextlib.contextmanager
def modules_in(folder: pathlib.Path) -> Iterator[None]:
    """Lets the modules of a folder be imported, and forgets them afterwards: another
    page or test may have a module of the same name."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in [*sys.modules.items()]:
            file = getattr(module, "__file__", None)
            if file and pathlib.Path(file).is_relative_to(folder):
                del sys.modules[name]


def _run(
    outputs: list[str],
    command: list[str],
    environment: dict[str, str],
    folder: pathlib.Path,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in zip((1, 2), outputs, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(folder)
    # The tests' own process may have taken all of an accelerator's memory.
    jax.config.update("jax_platforms", "cpu")
    sys.argv = command
    sys.path.insert(0, str(ROOT / "experiments"))
    runpy.run_path(command[0], run_name="__main__")
