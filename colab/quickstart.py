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
# # Quick start: lose a device, keep the answer
#
# A CNN is cut into pieces for several devices, and a learned code adds a spare one.
# Here you train both, take devices away, and look at what comes back; it takes about a
# minute.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [notebook]: https://colab.research.google.com/github/coded-jax/coded_jax/blob/main/colab/quickstart.ipynb

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
# An image is split into `K` overlapping strips, side by side, one for each of the
# first `K` devices; `R` more devices get a *parity* piece each: the whole image, made
# as small as a strip. Any `K` results are enough.

# %% tags=["parameters"]
K = 2  # @param {type: "integer"}
R = 1  # @param {type: "integer"}
BASE_EPOCHS = 15  # @param {type: "integer"}
EPOCHS = 10  # @param {type: "integer"}

# %% [markdown]
# ## Train
#
# LeNet-5 first, on 5,000 images of MNIST that a package ships; then, around its frozen
# convolutions, how the image is made smaller, what sharpens the features of that, and a
# second copy of the head for what was lost. With `recipe="paper"`, and without the
# lines from `parity_pieces` to `base_learning_rate`, it is the paper's pair of
# networks. Everything is kept in a folder: stop the cell when you like, and the same
# cell goes on from there.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console

from coded_jax.cpu_kernels import lowering
from coded_jax.report import formatting, model_figures, run_figures, run_tables
from coded_jax.runs import experiment, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.prepare import prepare
from coded_jax.runs.workdir import Places

lowering.install()  # faster kernels for CPUs

folder = f"runs/quickstart-k{K}-r{R}-{BASE_EPOCHS}-{EPOCHS}"
config = Config(
    dataset="mnist_5k",
    k=K,
    r=R,
    grid=(1, K),
    recipe="systematic",
    parity_pieces="smaller",
    encoder="linear",
    decoder="sharpen",
    decoder_width=128,
    nonnegative=True,
    tail="tuned",
    distillation=1,
    supervision=3,
    draws="patterns",
    learning_rate=4e-3,
    base_learning_rate=1e-3,
    base_epochs=BASE_EPOCHS,
    epochs=EPOCHS,
)
console = Console(force_jupyter=False, force_terminal=False, width=100)  # plain lines
prepared = prepare(config, Places(folder))
results = experiment.run(prepared, console=console).results
seconds = results["timing"]["seconds"]["total"]
print(f"{results['base']['test_accuracy']:.2%} without losses, after {seconds:.0f} s")

# %%
run_figures.training(workdir.read_metrics(prepared.folder))

# %% [markdown]
# ## What a lost device costs
#
# Every set of lost devices was tried on all test images. *Zero fill* leaves the
# features of a lost device at zero, and *no parity* is the same decoder without the
# spare devices: it has the pixels of the lost strip alone. Each has a second copy of
# the head of its own.

# %%
console.print(run_tables.tables(results), highlight=False)

# %%
run_figures.accuracy(results)

# %% [markdown]
# ## Lose a device
#
# The finished run is loaded from its folder. Choose who is lost, and which image is
# looked at: on Colab the slider starts the cell. Devices `0` to `K - 1` hold the strips
# from left to right, those from `K` on the parity pieces.

# %%
# @title { run: "auto" }
LOST = 0  # @param {type: "slider", min: 0, max: 2, step: 1}
IMAGE = 3  # @param {type: "slider", min: 0, max: 50, step: 1}

import coded_jax

model = coded_jax.load(folder)
test = prepared.dataset.test
answer = model.predict(test.images[IMAGE : IMAGE + 1], lost=[LOST])
name = formatting.pattern_text([LOST], K)
sure = f"with a confidence of {answer.confidence[0]:.1%}"
print(
    f"{name} is lost: a {test.labels[IMAGE]} is taken for a {answer.classes[0]}, {sure}"
)
model_figures.features(model, test.images[IMAGE : IMAGE + 1], [LOST])

# %% [markdown]
# ## Lose each of them
#
# The first ten test images, and ten that are hard once a strip is lost. Each row is
# another lost device, each cell the answer with its calibrated confidence; wrong
# answers are red.

# %%
patterns = [[], *([device] for device in range(K + R))]
answers = [model.predict(test.images, lost) for lost in patterns]
surest = np.min([answer.confidence for answer in answers[1 : K + 1]], axis=0)
chosen = [*range(10), *(10 + np.argsort(surest[10:])[:10])]

figure, axes = plt.subplots(
    len(patterns) + 1,
    len(chosen),
    figsize=(0.65 * len(chosen), 0.65 * (len(patterns) + 1)),
    subplot_kw={"xticks": [], "yticks": []},
)
for column, i in enumerate(chosen):
    axes[0, column].imshow(test.images[i, ..., 0], cmap="gray_r")
    for row, answer in enumerate(answers, start=1):
        right = answer.classes[i] == test.labels[i]
        cell = axes[row, column]
        cell.set_facecolor("#dff0d8" if right else "#f2b8b5")
        text = f"{answer.classes[i]}\n{answer.confidence[i]:.0%}"
        cell.text(0.5, 0.5, text, ha="center", va="center", transform=cell.transAxes)
for row, lost in enumerate(patterns, start=1):
    label = formatting.pattern_text(lost, K)
    axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
axes[0, 0].set_ylabel("lost", rotation=0, ha="right", va="center")
plt.subplots_adjust(wspace=0.05, hspace=0.05)
plt.show()

# %% [markdown]
# ## Withhold what is not sure
#
# Below a confidence of your choice there is no answer (class -1). So errors can be
# traded for answers, whoever is lost.

# %%
for lost in patterns:
    for threshold in (0.0, 0.9):
        classes = model.predict(test.images, lost, abstain_below=threshold).classes
        given = np.asarray(classes) >= 0
        right = (np.asarray(classes) == test.labels)[given].mean()
        print(
            f"lost {formatting.pattern_text(lost, K):9}  threshold {threshold}: "
            f"{given.mean():6.1%} get an answer, {right:6.2%} of them right"
        )

# %% [markdown]
# From here: [devices and timing](placement.ipynb), [a CNN of your own](own_cnn.ipynb),
# [an ablation](ablation.ipynb).
