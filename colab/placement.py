# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab][badge]][notebook]
#
# # Devices: which one computes what, and how long it takes
#
# The `n` pieces of an image go to the devices at hand: GPUs, the chips of a TPU, or a
# single chip, as Colab has it. This notebook shows who computes which piece, what the
# compiler makes of it, here and for a TPU that is not here, and times it; nothing is
# trained, since weights of any value take the same time.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [notebook]: https://colab.research.google.com/github/coded-jax/coded_jax/blob/main/colab/placement.ipynb

# %%
REPOSITORY = "https://github.com/coded-jax/coded_jax"
# Not published yet. Until it is, open this notebook in a clone that is installed
# (pip install -e '.[notebooks]'); the package is then found, and nothing is fetched.

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

if find_spec("coded_jax") is None:  # else it is installed, as in a clone
    kept = [f"{name}=={version(name)}" for name in ("jax", "jaxlib", "numpy")]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    if not os.path.exists("clone"):
        git = ["git", "clone", "-q", "--depth=1"]
        subprocess.run([*git, REPOSITORY, "clone"], check=True)
    subprocess.run([*pip, "-e", "./clone[quickstart]", *kept], check=True)
    sys.path.insert(0, "clone")  # what is installed like this only new kernels find
    assert kept == [f"{name}=={version(name)}" for name in ("jax", "jaxlib", "numpy")]
print("jax", version("jax"))

# %% [markdown]
# ## Settings
#
# Choose an accelerator with *Runtime > Change runtime type* first. Where there is none,
# the CPU stands for `CPU_DEVICES` devices, so that the placement can be seen; `1`
# leaves it as it is. `TARGET` is a TPU that is compiled for without having it: a chip,
# and how many of them lie side by side.

# %% tags=["parameters"]
K = 2  # @param {type: "integer"}
R = 1  # @param {type: "integer"}
CPU_DEVICES = 6  # @param {type: "integer"}
TARGET = "v5e:2x4"  # @param {type: "string"}
BATCHES = [1, 64, 256]  # @param
REPEATS = 30  # @param {type: "integer"}

# %% [markdown]
# ## The devices
#
# They form a mesh with two axes. Along `piece` the devices share the pieces of an
# image, along `data` the images of a batch. Of all such meshes it is the one that
# leaves a device the least to compute. The number of CPU devices must be set before JAX
# looks for any.

# %%
from coded_jax.devices import startup

startup.offer_cpu_devices(CPU_DEVICES)  # accelerators are not affected

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.devices import meshes, placement

n = K + R
mesh = meshes.make_mesh(n)
pieces, parts = mesh.devices.shape
first = mesh.devices.flat[0]
print(f"{jax.device_count()} x {first.device_kind} ({first.platform})")
print(f"mesh: {pieces} along piece, {parts} along data")
if mesh.size == 1:
    print(
        f"There is one device, and it computes all {n} pieces, as one batch. A\n"
        "lost device is simulated: its result is thrown away. A code is of use with\n"
        "several devices, and the answers are the same there."
    )
elif pieces < n:
    print(f"{pieces} devices share {n} pieces: some compute more than one.")
else:
    print(f"Each piece has a device of its own, and each batch is cut in {parts}.")
if mesh.size > 1 and first.platform == "cpu":
    print("These are one CPU that stands for several devices: it is slower than one.")

# %%
# %matplotlib inline
from coded_jax.aot import mesh_picture

mesh_picture.figure_of(mesh, K, R)

# %% [markdown]
# ## Which device computes which piece
#
# That was a drawing of what should happen; this is an answer of the devices. Instead of
# a CNN they run a function that returns the number of its device. It goes through
# `placement.data_parallel`, as every coded inference does.

# %%
import matplotlib.pyplot as plt

numbers = np.array([[device.id for device in row] for row in mesh.devices])


def number(queries):
    """Who is asked: the number of a device, for each query `[pieces, images]`."""
    if mesh.size == 1:
        return jnp.full_like(queries, numbers[0, 0])
    row, column = (jax.lax.axis_index(axis) for axis in mesh.axis_names)
    return jnp.full_like(queries, jnp.asarray(numbers)[row, column])


def ask(spread, images):
    return spread(number, jnp.broadcast_to(images[None], (n, *images.shape)))


batch = 2 * mesh.size
who = placement.data_parallel(mesh, ask, in_axes=(0,), out_axes=1)
owners = np.asarray(jax.jit(who)(jnp.zeros(batch, jnp.int32)))

names = [f"data {i}" for i in range(K)] + [f"parity {i}" for i in range(R)]
for name, row in zip(names, owners, strict=True):
    print(f"{name:9} on device", ", ".join(map(str, np.unique(row))))

figure, axes = plt.subplots(figsize=(1.5 + 0.45 * batch, 0.8 + 0.45 * n))
axes.pcolormesh(owners, cmap="tab20", vmin=0, vmax=19, edgecolors="white", linewidth=2)
for (piece, image), device in np.ndenumerate(owners):
    axes.text(image + 0.5, piece + 0.5, device, ha="center", va="center")
axes.set_xticks(np.arange(batch) + 0.5, range(batch))
axes.set_yticks(np.arange(n) + 0.5, names)
axes.set(xlabel="image of the batch", title="number of the device")
axes.invert_yaxis()
plt.show()

# %% [markdown]
# ## The same answers everywhere
#
# LeNet-5 and a code with weights at random, once on one device and once on all of them,
# with every single device lost. The logits agree to rounding.

# %%
from coded_jax import data
from coded_jax.codes import erasures
from coded_jax.inference.pipeline import Examples, base_features
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import compiled_infer
from coded_jax.runs.config import Config

dataset = data.load("mnist_5k")
config = Config(dataset="mnist_5k", k=K, r=R, recipe="systematic")
examples = Examples(dataset.image_shape, dataset.mean, dataset.std)


def pipeline_on(mesh):
    """The coded inference on the devices of a mesh, with its variables on each."""
    pipeline = build_pipeline(config, examples, dataset.classes, mesh)
    key = jax.random.key(0)
    frozen = pipeline.base.init(key, dataset.image_shape, dataset.classes)
    variables = placement.put_replicated(mesh, (frozen, pipeline.init(key)))
    return pipeline, *variables


alone = pipeline_on(meshes.make_mesh(n, devices=1))
spread = pipeline_on(mesh)
images = dataset.test.images[:64]
for device in range(n):
    available = erasures.available([device], n)
    expected = np.asarray(compiled_infer(*alone, images, available))
    found = np.asarray(compiled_infer(*spread, images, available))
    error = abs(found - expected).max() / abs(expected).max()
    print(f"{names[device]:9} lost: relative difference {error:.1e}")

# %% [markdown]
# ## What the compiler makes of it
#
# Coded inference, the same network without a code, and a training step of the code,
# compiled for these devices. The figures are those of one device: millions of floating
# point operations; megabytes of its memory that are read and written, and that are
# needed at once; what it sends to others. An inference on several devices exchanges
# pieces and results by two all-to-alls, and collects the logits by an all-gather;
# training exchanges gradients and losses alone. Where the chip is known, *bound* is the
# time below which the program cannot end, and what sets it: products, memory (HBM), or
# links to other chips.

# %%
from rich.console import Console

from coded_jax.aot import program_table, programs
from coded_jax.aot.chips import chip_of

console = Console(force_jupyter=False, force_terminal=False, width=88)  # plain lines


def show_programs(mesh):
    """Compiles the programs for the devices of a mesh, and prints their figures."""
    examples = len(dataset.train.images)
    described = programs.Sizes(dataset.image_shape, dataset.classes, examples)
    subject = programs.Subject(config, described, mesh)
    chosen = subject.inference(64), subject.uncoded_inference(64), subject.step("code")
    compiled = list(map(programs.compile_program, chosen))
    chip = chip_of(mesh.devices.flat[0].device_kind)
    console.print(program_table.table(compiled, chip))


show_programs(mesh)

# %% [markdown]
# ## A TPU that is not here
#
# The same, compiled for the chips that `TARGET` describes, by their own compiler, which
# runs on any CPU. Nothing is run there and nothing is measured: the bound says what the
# program cannot undercut, not what it takes. On a TPU every chip takes part.

# %%
from coded_jax.aot import topologies

chips = []
try:
    chips = topologies.describe(TARGET)
except ImportError as error:  # says what to install
    print(error)
if chips:
    described = meshes.make_mesh(n, available=chips)
    show_programs(described)
mesh_picture.figure_of(described, K, R) if chips else None

# %% [markdown]
# ## Timing
#
# Measured, on the devices at hand: the median over many calls, in milliseconds. Each is
# timed after a first call that compiles, with the images on the devices already, until
# the result is there: JAX returns at once and computes behind one's back, so a clock
# that does not wait (`block_until_ready`) measures nothing.

# %%
import time


def milliseconds(f, *args):
    jax.block_until_ready(f(*args))  # compiles
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(f(*args))
        taken.append(1e3 * (time.perf_counter() - start))
    return np.median(taken)


def coded(pipeline, frozen, params, lost):
    available = placement.put_replicated(pipeline.mesh, erasures.available(lost, n))
    return lambda images: compiled_infer(pipeline, frozen, params, images, available)


@jax.jit
def uncoded(images):
    pipeline, frozen, _ = alone
    return pipeline.base.head(frozen, base_features(pipeline, frozen, images))


ways = {
    "uncoded, one device": (alone, uncoded),
    "coded, one device": (alone, coded(*alone, [])),
    "coded, one device, data 0 lost": (alone, coded(*alone, [0])),
}
if mesh.size > 1:
    all_of_them = f"coded, {mesh.size} devices"
    ways[all_of_them] = (spread, coded(*spread, []))
    ways[f"{all_of_them}, data 0 lost"] = (spread, coded(*spread, [0]))

print(f"{'batch':32}" + "".join(f"{batch:>10}" for batch in BATCHES))
for name, ((pipeline, *_), f) in ways.items():
    times = []
    for batch in BATCHES:
        images = placement.put_replicated(pipeline.mesh, dataset.test.images[:batch])
        times.append(milliseconds(f, images))
    print(f"{name:32}" + "".join(f"{value:10.2f}" for value in times))

# %% [markdown]
# How to read it: coded, each image is computed as `n` pieces that overlap, so on one
# device a code costs more than it saves; on `n` devices each has one piece to compute,
# and the slowest of them need not be waited for. Which device is lost is data and not
# structure: the time is the same, and nothing compiles anew. One program over all
# devices waits for all of its parts; what answers from the first `K` results of
# `n` is `coded_jax.serve`.
