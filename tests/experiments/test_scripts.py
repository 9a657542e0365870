"""The scripts and flagfiles of experiments/, and what is stored of them."""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from coded_jax import data
from coded_jax.cli import experiment_flags, run_flags
from coded_jax.evaluation import pattern_accuracy
from coded_jax.runs import build, workdir
from coded_jax.runs.config import Config
from coded_jax.runs.regime import regime_of
from coded_jax.training import checkpoints, loop, tasks
from tests.parameters import long

ROOT = pathlib.Path(__file__).parents[2]

# Those of one experiment; sweeps have others, see test_sweep.py.
FLAGFILES = [
    path
    for path in sorted((ROOT / "experiments" / "flags").glob("*.flags"))
    if not re.search(r"^--(vary|variant)=", path.read_text(), re.M)
    and not path.stem.startswith("search_")
]
RESULTS = sorted((ROOT / "experiments" / "results").glob("*.json"))


def config_of(monkeypatch, *arguments):
    monkeypatch.chdir(ROOT)  # flagfiles name others relative to the repository
    with flagsaver.flagsaver():
        flags.FLAGS(["run.py", *arguments])
        return experiment_flags.config_from_flags()


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.stem)
def test_flagfile_is_valid_and_says_what_it_is(monkeypatch, path):
    config = config_of(monkeypatch, f"--flagfile={path}")
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    if match := re.match(r"table5_k(\d)_r(\d)(_conv)?$", path.stem):
        k, r, conv = match.groups()
        kind = "conv" if conv else "mlp"
        assert (config.k, config.r, config.l) == (int(k), int(r), int(r))
        assert (config.encoder, config.decoder, config.recipe) == (kind, kind, "paper")
        # Section IV-A.
        assert (config.batch_size, config.learning_rate) == (64, 1e-3)
        assert (config.weight_decay, config.dataset) == (1e-5, "mnist")


@pytest.mark.parametrize("dataset", ["fashion", "cifar10", *long("cifar100")])
@pytest.mark.parametrize("net", ["lenet5", "vgg16", "resnet18", "mobilenet"])
@pytest.mark.parametrize("full", [False, *long(True)])
def test_every_network_has_a_small_and_a_full_flagfile(monkeypatch, dataset, net, full):
    name = f"{dataset}_{net}"
    if full:
        name += "_full"
    elif dataset == "fashion":
        name += "_k4_r2" if net == "lenet5" else "_k2_r1"
    config = config_of(monkeypatch, f"--flagfile=experiments/flags/{name}.flags")
    assert config.dataset == {"fashion": "fashion_mnist"}.get(dataset, dataset)
    assert config.base_model == net and config.recipe == "systematic"
    wide = full or net == "lenet5"
    assert config.base_width == 1 if wide else config.base_width < 0.5
    shape = (28, 28, 1) if dataset == "fashion" else (32, 32, 3)
    pipeline = build.build_pipeline(config, shape, 10, (0.5,), (0.5,))
    assert len(pipeline.stages) == (1 if net == "lenet5" else 2)


def test_workdirs_of_flagfiles_differ():
    folders = [
        re.findall(r"^--workdir=(.*)$", path.read_text(), re.M) for path in FLAGFILES
    ]
    assert all(len(workdirs) == 1 for workdirs in folders)
    assert len({workdirs[0] for workdirs in folders}) == len(folders)
    for path, (folder,) in zip(FLAGFILES, folders, strict=True):
        assert folder == f"runs/{path.stem}"


def test_flagfiles_that_share_a_base_model_mean_the_same_one(monkeypatch):
    monkeypatch.chdir(ROOT)
    bases = {}
    for path in FLAGFILES:
        with flagsaver.flagsaver():
            flags.FLAGS(["run.py", f"--flagfile={path}"])
            config, folder = (
                experiment_flags.config_from_flags(),
                run_flags.BASE_DIR.value,
            )
        if folder is not None:
            assert bases.setdefault(folder, config.base) == config.base, path.name
    assert len(bases) > 5


def test_committed_base_model_has_the_flags_of_the_frontier(monkeypatch):
    folder = ROOT / "experiments/bases/mnist_lenet5"
    flagfile = ROOT / "experiments/flags/frontier_lenet5.flags"
    assert f"--base_dir={folder.relative_to(ROOT)}\n" in flagfile.read_text()
    config = config_of(monkeypatch, f"--flagfile={flagfile}").base
    defaults = Config().to_flags()
    run_flags = workdir.RunFlags(config.to_flags(), defaults=defaults)
    workdir.open_workdir(folder, run_flags, write=False)


@pytest.mark.long
def test_committed_base_model_is_that_of_the_frontier(monkeypatch):
    folder = ROOT / "experiments/bases/mnist_lenet5"
    flagfile = ROOT / "experiments/flags/frontier_lenet5.flags"
    config = config_of(monkeypatch, f"--flagfile={flagfile}").base
    try:
        dataset = data.load("mnist")
    except (ValueError, OSError, ImportError):
        pytest.skip("no MNIST")
    examples = len(dataset.train.labels)
    pipeline = build.uncoded_pipeline(config, dataset.mean, dataset.std)
    optimizer = regime_of(config, "base").optimizer(examples)
    init = tasks.base_task(pipeline, dataset, optimizer).init
    fresh = functools.partial(loop.initial_state, init, optimizer)
    like = jax.eval_shape(fresh, jax.random.key(0))
    restored = checkpoints.restore(workdir.checkpoint_folder(folder, "base"), like)
    epochs, size = config.base_epochs, config.base_batch_size
    assert restored.step == loop.total_steps(examples, size, epochs)
    test = tasks.device_arrays(None, dataset.test)
    best = restored.state[1].params
    accuracy = pattern_accuracy.base_accuracy(pipeline, best, test)
    for path in (ROOT / "experiments/results/frontier").glob("*.json"):
        assert json.loads(path.read_text())["base"]["test_accuracy"] == accuracy


def test_all_flagfiles_of_table_5_are_there():
    names = {path.stem for path in FLAGFILES}
    rows = {f"table5_k{k}_r{r}" for k, r in ((2, 1), (4, 1), (4, 2))}
    assert rows | {f"{row}_conv" for row in rows} | {"quickstart"} <= names


def test_runs_of_the_frontier_have_valid_flags(monkeypatch, tmp_path):
    scripts = shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    (tmp_path / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "python").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    script = [str(scripts / "frontier_lenet5.sh")]
    done = subprocess.run(
        script, check=True, capture_output=True, text=True, env={"PATH": path}
    )
    *runs, last = (line.split() for line in done.stdout.splitlines())
    assert last[0] == "experiments/frontier.py" and len(runs) == 3 * 11
    configs = [config_of(monkeypatch, *arguments[1:]) for arguments in runs]
    assert {config.n for config in configs} == {3, 5, 6}
    assert all(config.tried == config.n and config.seeds == 5 for config in configs)
    assert len({config.base for config in configs}) == 1


def test_later_flags_win(monkeypatch):
    flagfile = f"--flagfile={ROOT}/experiments/flags/table5_k4_r2_conv.flags"
    arguments = [flagfile, "--recipe=systematic", "--dilations=1,2", "--grid=2x2"]
    config = config_of(monkeypatch, *arguments)
    assert (config.recipe, config.k) == ("systematic", 4)
    assert (config.dilations, config.grid) == ((1, 2), (2, 2))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stages": ((1, 1), (3, 4)), "base_model": "vgg16", "base_width": 0.0625},
        {"k": 4, "grid": (2, 2), "l": 0, "dilations": (1, 2), "encoder_width": 3},
        {
            "stage_training": "per_stage",
            "stage_losses": "per_stage",
            "base_batch_size": 8,
            "base_learning_rate": 0.1,
            "base_schedule": "constant",
            "augmentation": "flip_shift",
            "label_smoothing": 0.1,
            "precision": "bfloat16",
        },
        {"k": 4, "r": 2, "pattern_weights": (((0, 4), 8.0), ((1,), 0.5))},
    ],
)
def test_flags_of_a_config_are_read_as_that_config(monkeypatch, fields):
    config = Config(**fields)
    for expected in (config, config.base):
        arguments = [f"--{name}={value}" for name, value in expected.to_flags().items()]
        assert config_of(monkeypatch, "--workdir=x", *arguments) == expected


def test_a_stage_of_one_block(monkeypatch):
    config = config_of(monkeypatch, "--workdir=x", "--stages=1,3-4")
    assert config.stages == ((1, 1), (3, 4))


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--grid=2x", "^grid: '2x' given, rows x columns as 2x2 accepted"),
        ("--stages=1-2-3", "^stages: '1-2-3' given, blocks as 1-2,3-4"),
        ("--stages=a-b", "^stages: 'a-b' given, blocks"),
        ("--stages=-2", "^stages: '-2' given, blocks"),
        ("--dilations=1,a", "^dilations: '1,a' given, integers"),
        ("--pattern_weights=a:1", "^pattern_weights: 'a:1' given, patterns and"),
        ("--pattern_weights=0+1", "^pattern_weights: '0.1' given, patterns and"),
        ("--pattern_weights=0:x", "^pattern_weights: '0:x' given"),
        ("--pattern_weights=0:0", "^pattern_weights: .*1e-6"),
    ],
)
def test_flags_that_are_no_numbers(monkeypatch, argument, message):
    with pytest.raises((ValueError, flags.Error), match=message):
        config_of(monkeypatch, "--workdir=x", argument)


def test_results_hold_no_path_of_a_machine():
    paths = sorted((ROOT / "experiments" / "results").rglob("*.json"))
    assert len(paths) > len(RESULTS) + 10
    for path in paths:
        command = json.loads(path.read_text())["command"]
        scripts = "run|check|latency|sweep|benchmark|compile|map|map_check|stages"
        scripts += "|load|faults|soak"
        form = rf"python experiments/({scripts})\.py [\w=.,:/ -]+"
        assert re.fullmatch(form, command)
        assert "/tmp" not in command and "/home" not in command
