"""The library with the kernels in C++: built once on each machine, then kept.

It is two files against the headers of XLA's foreign functions and of oneDNN, which the
system's compiler turns into a library in a few seconds. The library's name has a key of
all that goes into it, and it is written whole or not at all, so that several processes
may build it at once.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import jax
import jaxlib

FOLDER = Path(__file__).parent
SOURCES = [FOLDER / name for name in ("onednn_convolution.cc", "max_pooling.cc")]
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-w")
# Without the new tags its own oneDNN is found even where LD_LIBRARY_PATH has another.
LINKING = ("-ldnnl", "-Wl,--disable-new-dtags")
EXTRA = "pip install 'coded_jax[cpu]'"
PACKAGES = ("onednn-cpu-gomp", "onednn-devel-cpu-gomp")


class Unavailable(Exception):
    """There is no such library here; says why and, where there is one, the way out."""


class OneDnn(NamedTuple):
    """An installed oneDNN.

    Attributes:
      key: changes with the version.
      compiling, linking: flags that name its folders; none for the system's.
    """

    key: str
    compiling: tuple[str, ...] = ()
    linking: tuple[str, ...] = ()


def load_library(folder: Path) -> ctypes.CDLL:
    """Loads the library, and builds it first where that was not done yet.

    Args:
      folder: where it is kept; made if need be.

    Raises:
      Unavailable: the processor is another, or oneDNN or a compiler is missing.
    """
    system, processor = platform.system(), platform.machine()
    if (system, processor) != ("Linux", "x86_64"):
        raise Unavailable(f"oneDNN is for Linux and x86-64, not {system} {processor}")
    onednn, chosen = _find_onednn(), os.environ.get("CXX", "").strip()
    commands = [chosen] if chosen else ["g++", "c++", "clang++"]  # or `ccache g++`
    found = (name for name in commands if shutil.which(shlex.split(name)[0]))
    compiler = next(found, None)
    if compiler is None:
        missing = " or ".join(commands)
        raise Unavailable(f"oneDNN needs a compiler of C++; there is no {missing}")
    # It is compiled for the instructions that the processor has.
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    features = next((line for line in lines if line.startswith("flags")), "")
    texts = [path.read_text() for path in (*SOURCES, FOLDER / "parallel.h")]
    versions = [jaxlib.__version__, onednn.key, compiler]
    parts = [*texts, *versions, *FLAGS, *LINKING, features]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    target = folder / f"coded_jax_kernels_{key}.so"
    try:
        if not target.exists():
            _build(onednn, compiler, target)
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise Unavailable(
            f"{target} cannot be written or loaded, JAX_COMPILATION_CACHE_DIR names "
            f"another folder ({error})"
        ) from error


def _find_onednn() -> OneDnn:
    """Finds oneDNN among the installed packages, or else in the system.

    Raises:
      Unavailable: it is in neither.
    """
    try:
        files = [file for name in PACKAGES for file in metadata.files(name) or ()]
        # `dnnl.h` is there twice, and the one in `oneapi/dnnl` includes `oneapi/..`.
        files = [file for file in files if file.parent.name != "dnnl"]
        versions = [metadata.version(name) for name in PACKAGES]
    except metadata.PackageNotFoundError:
        pass
    else:
        folders = {file.name: Path(file.locate()).parent.resolve() for file in files}
        headers, library = folders["dnnl.h"], folders["libdnnl.so"]
        linking = f"-L{library}", f"-Wl,-rpath,{library}"
        return OneDnn(f"{library} {versions}", (f"-I{headers}",), linking)
    name = ctypes.util.find_library("dnnl")
    if name is None:
        raise Unavailable(f"oneDNN is not installed: {EXTRA}")
    return OneDnn(name)


def _build(onednn: OneDnn, compiler: str, target: Path) -> None:
    """Compiles the source into `target`, which is there whole or not at all.

    Raises:
      Unavailable: it does not compile.
      OSError: `target` cannot be written.
    """
    way_out = "" if onednn.linking else f": {EXTRA}"

    def run(arguments: list[str]) -> None:
        command = [*shlex.split(compiler), *FLAGS, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            error = next((line for line in lines if "error" in line), lines[0])
            raise Unavailable(f"oneDNN's kernels do not compile: {error}{way_out}")

    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        ThreadPoolExecutor() as pool,
    ):
        objects = [os.path.join(folder, f"{i}.o") for i in range(len(SOURCES))]
        includes = [f"-I{jax.ffi.include_dir()}", *onednn.compiling]
        compile_one = lambda source, to: run(["-c", str(source), *includes, "-o", to])
        list(pool.map(compile_one, SOURCES, objects))  # each takes seconds
        unfinished = os.path.join(folder, target.name)
        run(["-shared", *objects, *onednn.linking, *LINKING, "-o", unfinished])
        os.replace(unfinished, target)
