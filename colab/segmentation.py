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
# # Answers that are images
#
# A network that segments images is handed over as one function. Its stages are found by
# its operations, a code is trained around them, and every set of lost devices is tried
# on every pixel.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [notebook]: https://colab.research.google.com/github/coded-jax/coded_jax/blob/main/colab/segmentation.ipynb

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
# `K` devices compute pieces of the image, `R` more of them parity pieces.

# %% tags=["parameters"]
K = 2  # @param {type: "integer"}
R = 1  # @param {type: "integer"}
STEPS = 800  # @param {type: "integer"}
EPOCHS = 2  # @param {type: "number"}

# %% [markdown]
# ## The images
#
# Three to six digits on a canvas of 64x64. Each pixel is background, or one of ten
# digits.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt

from coded_jax import data

dataset = data.load("mnist_canvas")
print(dataset.train.images.shape, dataset.train.labels.shape)
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2))
for i, (above, below) in enumerate(axes.T):
    above.imshow(dataset.test.images[i, ..., 0], cmap="gray", interpolation="nearest")
    below.imshow(dataset.test.labels[i], cmap="tab20", vmax=19, interpolation="nearest")
    above.set_axis_off()
    below.set_axis_off()
plt.show()

# %% [markdown]
# ## A network
#
# A U-Net in Flax: down twice, and up again beside what it has seen on the way.

# %%
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from coded_jax.cpu_kernels import lowering
from coded_jax.inference.pixels import normalise

lowering.install()  # faster kernels for CPUs


class Layer(nn.Module):
    maps: int

    @nn.compact
    def __call__(self, x):
        # Normalised by the channels of a pixel, so that pieces are as the whole image.
        return nn.relu(nn.LayerNorm()(nn.Conv(self.maps, (3, 3))(x)))


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x):  # [B, 64, 64, 1] -> [B, 64, 64, 11]
        skips = []
        for maps in (12, 24):
            skips.append(Layer(maps)(x))
            x = nn.max_pool(skips[-1], (2, 2), (2, 2))
        x = Layer(48)(x)
        for maps, skip in zip((24, 12), skips[::-1], strict=True):
            x = nn.ConvTranspose(maps, (2, 2), (2, 2))(x)
            x = Layer(maps)(jnp.concatenate([skip, x], -1))
        return nn.Conv(dataset.classes, (1, 1))(x)


network = UNet()
images = normalise(dataset.train.images, dataset.mean, dataset.std)
variables = network.init(jax.random.key(0), images[:1])
adam = optax.adam(optax.cosine_decay_schedule(4e-3, STEPS))
state = adam.init(variables)


@jax.jit
def step(variables, state, images, labels):
    def loss(variables):
        logits = network.apply(variables, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, grads = jax.value_and_grad(loss)(variables)
    updates, state = adam.update(grads, state)
    return optax.apply_updates(variables, updates), state, value


for i in range(STEPS):
    rows = slice(i * 16 % 4000, i * 16 % 4000 + 16)
    variables, state, value = step(
        variables, state, images[rows], dataset.train.labels[rows]
    )
    if i % 100 == 0 or i == STEPS - 1:
        print(f"step {i:4}: loss {float(value):.3f}")

# %% [markdown]
# ## Where to cut it
#
# The stages that cost least, at rates of devices and links that `plan_stages` is told;
# what stands in their way; and what a device then does. Upsampling is split exactly, so
# that a part of the way down and up may be one stage. On larger images it is all of it:
# pieces overlap by what a position depends on, whatever the size.

# %%
from rich.console import Console

import coded_jax
from coded_jax.inference.rates import Rates
from coded_jax.report import plan_view

console = Console(force_jupyter=False, force_terminal=False, width=100)  # plain lines
plan = coded_jax.plan_stages(network.apply, variables, dataset.image_shape, K, R)
console.print(plan_view.proposal(plan, Rates()), highlight=False)

# %% [markdown]
# ## Protect it
#
# `protect` plans in the same way, trains a code, and tries every set of lost devices on
# every test image.

# %%
from coded_jax.report import run_tables

model = coded_jax.protect(
    model=network.apply,
    variables=variables,
    dataset=dataset,
    workdir=f"runs/segmentation-k{K}-r{R}-{STEPS}-{EPOCHS}",
    console=console,
    k=K,
    r=R,
    epochs=EPOCHS,
    batch_size=32,
    learning_rate=3e-3,
    supervision=0.5,
    baselines=("zero_fill",),
)
console.print(run_tables.tables(model.results), highlight=False)

# %% [markdown]
# ## Lose a device
#
# Labels, the answers with nothing lost, those without the first device, and where they
# differ.

# %%
from coded_jax.report import model_figures
from coded_jax.types import Split

shown = Split(dataset.test.images[:2], dataset.test.labels[:2])
model_figures.answers(model, shown, [0])
