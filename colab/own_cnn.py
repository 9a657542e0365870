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
# # Bring your own CNN
#
# Your CNN is two functions of its parameters: `f_conv`, which several devices share,
# and `head`, which follows. `coded_jax.protect` splits the first, trains a code around
# it, and tries every set of lost devices.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [notebook]: https://colab.research.google.com/github/coded-jax/coded_jax/blob/main/colab/own_cnn.ipynb

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
# `GRID` is how many pieces an image has along its height and its width, `R` how many
# spare devices there are.

# %% tags=["parameters"]
GRID = (2, 1)  # @param
R = 1  # @param {type: "integer"}
CNN_EPOCHS = 4  # @param {type: "integer"}
EPOCHS = 6  # @param {type: "integer"}

# %% [markdown]
# ## A CNN in Flax
#
# Two convolutions with a residual block between them; but any function on JAX will do,
# of `nnx` for instance `lambda variables, x: nnx.merge(graph, variables)(x)` with the
# two parts of `nnx.split(module)`. Images come normalised, as `[B, H, W, C]`.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import coded_jax
from coded_jax import data
from coded_jax.cpu_kernels import lowering
from coded_jax.inference.pixels import normalise

lowering.install()  # faster kernels for CPUs
dataset = data.load("mnist_5k")  # or a `data.Dataset` of your own arrays


class Features(nn.Module):
    @nn.compact
    def __call__(self, x):  # [B, 28, 28, 1] -> [B, 7, 7, 32]
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = x + nn.relu(nn.Conv(16, (1, 1))(x))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        return nn.max_pool(x, (2, 2), (2, 2))


class Head(nn.Module):
    @nn.compact
    def __call__(self, x):  # [B, 7, 7, 32] -> [B, 10]
        return nn.Dense(dataset.classes)(x.reshape(x.shape[0], -1))


def f_conv(variables, x):
    return Features().apply(variables["features"], x)


def head(variables, x):
    return Head().apply(variables["head"], x)


# %% [markdown]
# ## Train it
#
# As you are used to; `protect` takes the finished parameters and leaves them as they
# are.

# %%
optimizer = optax.adam(2e-3)


def loss(variables, images, labels):
    x = normalise(images, dataset.mean, dataset.std)
    logits = head(variables, f_conv(variables, x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@jax.jit
def step(variables, state, images, labels):
    gradient = jax.grad(loss)(variables, images, labels)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(variables, updates), state


@jax.jit
def classify(variables, images):
    x = normalise(images, dataset.mean, dataset.std)
    return head(variables, f_conv(variables, x)).argmax(-1)


image = jnp.zeros((1, *dataset.image_shape))
variables = {"features": Features().init(jax.random.key(0), image)}
variables["head"] = Head().init(jax.random.key(1), f_conv(variables, image))
state = optimizer.init(variables)
rng = np.random.default_rng(0)
for epoch in range(CNN_EPOCHS):
    order = rng.permutation(len(dataset.train.labels))
    for rows in np.array_split(order, len(order) // 64):
        batch = dataset.train.images[rows], dataset.train.labels[rows]
        variables, state = step(variables, state, *batch)
    found = classify(variables, dataset.validation.images)
    right = np.mean(found == dataset.validation.labels)
    print(f"epoch {epoch + 1}: validation accuracy {right:.2%}")

# %% [markdown]
# ## The split
#
# Which window of the image a piece needs is read off the function itself. The pieces
# overlap by what the convolutions look at, so a piece is more than its share of the
# work.

# %%
from IPython.display import Image

from coded_jax.report import plan_view

plan = coded_jax.make_plan(f_conv, variables, dataset.image_shape, GRID)
print(f"{plan.k} pieces of {plan.piece_shape[0]}x{plan.piece_shape[1]} pixels,")
print(f"each {plan.work_fraction:.0%} of the work of the whole image")
plan_view.draw("pieces.png", dataset.test.images[0], plan)
Image("pieces.png", width=420)

# %% [markdown]
# What looks at all positions at once cannot be split, and is refused before anything is
# trained. Here the features are scaled by their mean over the image, as in a
# squeeze-and-excitation block; the line says where that may go instead.


# %%
def scaled(variables, x):
    features = f_conv(variables, x)
    return features * features.mean((1, 2), keepdims=True)


try:
    coded_jax.protect(blocks=scaled, head=head, variables=variables, dataset=dataset)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Protect it
#
# All settings of the experiments may be given. The folder keeps what is trained: stop
# the cell when you like, and it goes on from there; for another CNN or other settings
# choose another folder.

# %%
# %matplotlib inline
from rich.console import Console

from coded_jax.inference import costs
from coded_jax.report import formatting, model_figures, run_tables

console = Console(force_jupyter=False, force_terminal=False, width=100)  # plain lines
model = coded_jax.protect(
    blocks=f_conv,
    head=head,
    variables=variables,
    dataset=dataset,
    workdir=f"runs/own_cnn-{CNN_EPOCHS}-{EPOCHS}",
    console=console,
    k=plan.k,
    r=R,
    grid=GRID,
    epochs=EPOCHS,
    learning_rate=3e-3,
    decoder_width=256,
)
parts = model.pipeline, variables, dataset.image_shape
stages, cost = costs.stage_costs(*parts), costs.cost_of(*parts)
console.print(plan_view.table(stages, cost, R), highlight=False)

# %% [markdown]
# ## What a lost device costs
#
# Every set of at most `R` lost devices, on all test images, beside zeros in place of
# the lost features (`zero_fill`) and a decoder that has no parity piece (`no_parity`).

# %%
console.print(run_tables.tables(model.results), highlight=False)

# %% [markdown]
# ## Lose devices
#
# Devices from 0 on hold the pieces of the image, the last `R` the parity pieces. The
# features of the first device are reconstructed from what the others sent.

# %%
images, labels = dataset.test.images[:12], dataset.test.labels[:12]
print(f"{'labels':14}", *labels)
for lost in [[], *([device] for device in range(plan.k + R))]:
    name = formatting.pattern_text(lost, plan.k)
    print(f"lost {name:9}", *np.asarray(model.classify(images, lost)))
model_figures.features(model, images[:3], [0])
