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
# # An ablation from end to end
#
# How far should the layers of an encoder and a decoder look? One command trains a code
# for each schedule of dilations, twice, and leaves one table; this notebook runs it,
# draws it, and says how to read it.
#
# [badge]: https://colab.research.google.com/assets/colab-badge.svg
# [notebook]: https://colab.research.google.com/github/coded-jax/coded_jax/blob/main/colab/ablation.ipynb

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
# A schedule is the dilations of the layers, from the first to the last: all have as
# many layers and as many parameters, and only differ in how far apart the pixels are
# that a layer combines.

# %% tags=["parameters"]
SCHEDULES = ["1,1,1,1", "1,2,4,1", "1,4,8,1"]  # @param
SEEDS = 3  # @param {type: "integer"}
BASE_EPOCHS = 10  # @param {type: "integer"}
EPOCHS = 3  # @param {type: "integer"}
WIDTH = 16  # @param {type: "integer"}

# %% [markdown]
# ## Run it
#
# `experiments/sweep.py` takes the flags of a single experiment, and `--vary` with a
# flag and its values. All cells share one base model. Started again it goes on where it
# was stopped, and `--jobs=4` runs cells beside each other, with Ray.

# %%
import re
from pathlib import Path

import coded_jax

root = Path(coded_jax.__file__).parents[1]
folder = Path("runs", f"ablation-{SEEDS}-{BASE_EPOCHS}-{EPOCHS}-{WIDTH}")
flags = [
    f"--workdir={folder}",
    f"--vary=dilations={' '.join(SCHEDULES)}",
    f"--seeds={SEEDS}",
    "--dataset=mnist_5k",
    "--k=2",
    "--r=1",
    "--recipe=systematic",
    "--encoder=conv",
    "--decoder=conv",
    f"--encoder_width={WIDTH}",
    f"--decoder_width={WIDTH}",
    "--decoder_channels=joint",
    "--baselines=zero_fill",
    f"--base_epochs={BASE_EPOCHS}",
    f"--epochs={EPOCHS}",
]
print("python experiments/sweep.py", *flags, sep=" \\\n    ")
os.environ.pop("FORCE_COLOR", None)  # lines, not a table that is drawn anew
command = [sys.executable, str(root / "experiments" / "sweep.py"), *flags]
with subprocess.Popen(
    command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
) as process:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.match(r"\d+/\d+ ", line):  # a cell is finished
            print(line, end="", flush=True)
if process.returncode:
    raise RuntimeError("".join(lines))

# %% [markdown]
# ## The table
#
# `table.csv` has a row for each cell, method, trial and number of lost results, with
# every flag; `table.jsonl` has the same. On Colab `pandas.read_csv` reads it too.

# %%
import csv

rows = list(csv.DictReader((folder / "table.csv").open()))
print(f"{len(rows)} rows, of which these are some:\n")
print(f"{'dilations':11}{'method':11}trial  lost   mean  worst   work")
for row in rows[:8]:
    print(
        f"{row['dilations']:11}{row['method']:11}{row['trial']:>5}{row['lost']:>6}",
        end="",
    )
    print("".join(f"{float(row[name]):7.3f}" for name in ("mean", "worst", "work")))

# %% [markdown]
# ## What one lost result costs
#
# The drop is what is lost of the base model's accuracy, in points, with one result
# lost: in the mean over all three devices that may be the lost one, and in the worst of
# them.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np


def drops(schedule, method, which):
    """In points, of each trial."""
    return [
        100 * (float(row["base_accuracy"]) - float(row[which]))
        for row in rows
        if (row["dilations"], row["method"], row["lost"]) == (schedule, method, "1")
    ]


def reach(schedule):
    """Rows and columns that an output of the layers depends on."""
    return 1 + 2 * sum(map(int, schedule.split(",")))


(zeros, *_) = drops(SCHEDULES[0], "zero_fill", "mean")
print(f"zeros in place of what is lost: a drop of {zeros:.2f} points in the mean\n")
print(f"{'dilations':12}{'reach':>8}{'mean drop':>18}{'worst drop':>18}{'work':>8}")
figure, axes = plt.subplots(figsize=(6.5, 4), layout="constrained")
for which, label in (("mean", "mean over the devices"), ("worst", "worst device")):
    values = np.array([drops(schedule, "learned", which) for schedule in SCHEDULES])
    places = np.arange(len(SCHEDULES))
    axes.errorbar(places, values.mean(1), values.std(1, ddof=1), capsize=4, label=label)
    axes.plot(places, values, "o", color="grey", alpha=0.6, markersize=4)
for schedule in SCHEDULES:
    mean, worst = (drops(schedule, "learned", which) for which in ("mean", "worst"))
    (work, *_) = (row["work"] for row in rows if row["dilations"] == schedule)
    texts = [f"{np.mean(x):.2f} ± {np.std(x, ddof=1):.2f}" for x in (mean, worst)]
    size = f"{reach(schedule)}x{reach(schedule)}"
    print(f"{schedule:12}{size:>8}{texts[0]:>18}{texts[1]:>18}{float(work):8.2f}")
labels = [f"{s}\nreach {reach(s)}x{reach(s)}" for s in SCHEDULES]
axes.set_xticks(places, labels)
axes.set(ylabel="drop with one result lost, points", ylim=(0, None))
axes.legend()
axes.grid(alpha=0.3)
plt.show()

# %% [markdown]
# How to read it: a point is one trial, a bar the standard deviation around their mean.
# Where the bars of two schedules overlap, these trials cannot tell the two apart; where
# they lie well apart, the lower one is better, and with so few trials (`SEEDS`) more
# of them make sure. The mean is what the loss of a device costs on average, the worst
# device what can be promised; and a reach beyond the maps that a layer sees, here
# pieces of 20x28 pixels and shares of a few features, cannot add anything.
