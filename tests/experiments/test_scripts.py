"""The flagfiles of experiments/, the searches that chose them, and scripts."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest
from absl import flags
from absl.testing import flagsaver
from tables import searches

from coded_jax.cli import experiment_flags
from coded_jax.runs import workdir
from coded_jax.runs.config import Config
from coded_jax.settings import settings
from tests.scripts import run_command, run_script

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = ROOT / "experiments/flags"
DECLARED = {declared.name: declared for declared in settings(Config)}
BUDGET = ("epochs", "train_images", "batch_size", "seed", "seeds")


def config_of(*arguments, **options):
    """Returns a config and the folder of its base model."""
    with flagsaver.flagsaver():
        flags.FLAGS(["run.py", *arguments], **options)
        return experiment_flags.config_from_flags(), experiment_flags.BASE_DIR.value


def test_all_flagfiles(monkeypatch):
    """Those of one experiment; sweeps have other flags."""
    monkeypatch.chdir(ROOT)  # flagfiles name others relative to the repository
    bases, configs = {}, {}
    for path in sorted(FLAGS.glob("*.flags")):
        text = path.read_text()
        assert text.startswith("# "), path
        if re.search("^--(vary|variant)=", text, re.M) or "search_" in path.stem:
            continue
        configs[path.stem], folder = config_of(f"--flagfile={path}")
        base = configs[path.stem].base
        assert re.findall(r"^--workdir=(.*)$", text, re.M) == [f"runs/{path.stem}"]
        if folder is not None:  # those that share a base model mean the same one
            assert bases.setdefault(folder, base) == base, path
    for k, r in ((2, 1), (4, 1), (4, 2)):  # Section IV-A
        for kind, ending in (("mlp", ""), ("conv", "_conv")):
            config = configs[f"table5_k{k}_r{r}{ending}"]
            assert (config.k, config.r, config.l) == (k, r, r)
            codes = (config.encoder, config.decoder, config.recipe)
            assert codes == (kind, kind, "paper") and config.dataset == "mnist"
            adam = (config.batch_size, config.learning_rate, config.weight_decay)
            assert adam == (64, 1e-3, 1e-5)
    nets = [f"{x}_{y}" for x in ("cifar10", "cifar100") for y in ("vgg16", "resnet18")]
    names = {"quickstart", *nets, *(f"{net}_full" for net in nets)}
    assert names <= set(configs) and len(bases) > 5
    kept = bases["experiments/bases/mnist_lenet5"].to_flags()
    workdir.open_workdir(ROOT / "experiments/bases/mnist_lenet5", kept, write=False)


def test_flagfiles_have_what_their_searches_found_best(monkeypatch):
    monkeypatch.chdir(ROOT)
    chosen = set()
    for kind in (searches.ALIKE, *searches.OWN):
        for place, search in searches.read(kind).items():
            command = shlex.split(search.content["command"])
            (own,) = (x.partition("=")[2] for x in command if "--flagfile=" in x)
            lines = pathlib.Path(own).read_text().splitlines()
            flagfile = next(line for line in lines if line.startswith("--flagfile="))
            assert len(search.cells) == len(search.content["cells"])
            rows = [r for c in search.cells for own in c.trials.values() for r in own]
            assert {row["evaluated"] for row in rows} == {"validation"}
            if kind == "deep" and pathlib.Path(flagfile).stem != place.name:
                continue  # it compares what its flagfile does not have
            chosen.add(place.name)
            best = searches.best(search).values
            config, _ = config_of("--workdir=x", flagfile, known_only=True)
            for name in set(best) & set(DECLARED) - set(BUDGET):
                assert getattr(config, name) == DECLARED[name].parse(best[name])
            if kind == "default":  # each code that may be the default is cheap
                assert max(row["work"] for row in rows) < 1
    assert {"deep_vgg16", "deep_resnet18", "deep_mobilenet", "default"} <= chosen
    alike = [*searches.read(searches.ALIKE).values()]
    grids = [(x.content["vary"], x.content["variants"]) for x in alike]
    assert len(grids) > 5 and all(grid == grids[0] for grid in grids)


def test_runs_of_the_frontier(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    folder = tmp_path / "experiments"
    folder.mkdir()
    script = shutil.copy(ROOT / "experiments/frontier_lenet5.sh", folder)
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    made = subprocess.check_output([script], text=True, env={"PATH": path})
    *runs, last = (line.split() for line in made.splitlines())
    assert last[0] == "experiments/frontier.py" and len(runs) == 3 * 11
    configs = [config_of(*arguments[1:])[0] for arguments in runs]
    assert {config.n for config in configs} == {3, 5, 6}
    assert all(config.tried == config.n and config.seeds == 5 for config in configs)


@pytest.mark.long
def test_plan(tmp_path):
    picture = tmp_path / "pieces.png"
    options = ("--image_shape=32x32x3", f"--picture={picture}")
    done = run_script("plan", f"--flagfile={FLAGS}/cifar10_vgg16.flags", *options)
    for words in ("1-2", "32x18x3", "0x4", "16x8x8", "0.562", "5-13", "whole", "k=2"):
        assert words in done.stdout, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    (tmp_path / "mine.py").write_text(
        "import jax\n"
        "def network():\n"
        "    shapes = [jax.ShapeDtypeStruct((3, 3, 1, 4), 'float32')]\n"
        "    numbers = ('NHWC', 'HWIO', 'NHWC')\n"
        "    layer = lambda w, x: jax.lax.conv_general_dilated(\n"
        "        x, w, (1, 1), 'SAME', dimension_numbers=numbers)\n"
        "    return lambda v, x: layer(v[0], x).mean((1, 2)), shapes\n"
    )
    options = ("--image_shape=24x20x1", "--picture=", "--bandwidth=1e8")
    done = run_command("plan", "--model=mine:network", *options, folder=tmp_path)
    assert "24x20x1" in done.stdout and "stages 1-1, grids 2x1" in done.stdout
    for options, message in {
        "--model=keras:NoSuchNet --image_shape=32x32x3": "model: 'keras:NoSuchNet'",
        "--image_shape=32x32": "image_shape: '32x32' given, HxWxC accepted",
        "--image_shape=28x28x1 --k=5": "k: 5 pieces along the rows",
        "--image_shape=28x28x1 --split=convolution": "code: 'learned' given",
    }.items():
        done = run_script("plan", *options.split())
        assert done.returncode == 1 and done.stderr.startswith(f"error: {message}")
        assert done.stderr.count("\n") == 1
