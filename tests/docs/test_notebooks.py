"""The notebooks of `colab/`: each runs, and is the text beside it."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import util
from importlib.metadata import version
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
COLAB = ROOT / "colab"
NAMES = sorted(path.stem for path in COLAB.glob("*.ipynb"))


def read(name):
    return nbformat.read(COLAB / f"{name}.ipynb", as_version=4)


def run(name, folder, small):
    """Everything that the notebook prints with `small` after its own settings, and how
    many pictures it draws."""
    notebook = read(name)
    (at,) = (i for i, cell in enumerate(notebook.cells) if cell.metadata.get("tags"))
    assert notebook.cells[at].metadata.tags == ["parameters"]
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(small))
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    # The notebooks share what is compiled, most of it in less than the default second.
    client.execute(
        env={**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    )
    all_outputs = outputs(notebook)
    text = "".join(output.get("text", "") for output in all_outputs)
    return text, sum("image/png" in output.get("data", {}) for output in all_outputs)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


@pytest.mark.long
def test_quickstart(tmp_path):
    text, pictures = run("quickstart", tmp_path, "BASE_EPOCHS, EPOCHS = 1, 0.3")
    (accuracy,) = re.findall(r"([\d.]+)% without losses", text)
    assert 50 < float(accuracy) < 100
    assert "zero_fill" in text and "data 0 is lost: a " in text
    # Without a threshold every image has an answer, with it fewer and better ones.
    rows = re.findall(r"threshold ([\d.]+): +([\d.]+)%.* ([\d.]+)% of them", text)
    thresholds, answered, right = zip(*(map(float, row) for row in rows), strict=True)
    assert thresholds == (0, 0.9) * 4
    assert set(answered[::2]) == {100} and max(answered[1::2]) < 100
    assert all(x < y for x, y in zip(right[::2], right[1::2], strict=True))
    assert pictures == 4


@pytest.mark.parametrize("devices, mesh", [(1, (1, 1)), (6, (3, 2))])
@pytest.mark.long
def test_placement(tmp_path, devices, mesh):
    small = f"CPU_DEVICES, BATCHES, REPEATS = {devices}, [1, 12], 2"
    text, pictures = run("placement", tmp_path, small)
    assert f"mesh: {mesh[0]} along piece, {mesh[1]} along data" in text
    assert ("There is one device" in text) == (devices == 1)
    owners = re.findall(r"^(data|parity) \d +on device ([\d, ]+)$", text, re.M)
    numbers = [number for _, ids in owners for number in ids.split(", ")]
    assert numbers == (["0"] * 3 if devices == 1 else [*"031425"])  # as in the mesh
    errors = re.findall(r"relative difference (\S+)", text)
    assert len(errors) == 3 and max(map(float, errors)) < 1e-4
    times = re.findall(r"^(?:un)?coded, .*?  +([\d.]+) +([\d.]+)$", text, re.M)
    assert len(times) == (3 if devices == 1 else 5)
    assert all(float(time) > 0 for row in times for time in row)
    described = util.find_spec("libtpu") is not None
    programs = [r"^ coded inference of 64 ", r"^ uncoded inference of 64 "]
    for program in (*programs, r"^ training step, code "):
        assert len(re.findall(program, text, re.M)) == 1 + described
    assert ("pip install 'coded_jax[aot-tpu]'" in text) != described
    assert len(re.findall(r"^ +2x4, \d+ fusions", text, re.M)) == 3 * described
    assert pictures == 2 + described


@pytest.mark.long
def test_own_cnn(tmp_path):
    text, pictures = run("own_cnn", tmp_path, "CNN_EPOCHS, EPOCHS = 1, 0.2")
    (trained,) = re.findall(r"epoch 1: validation accuracy ([\d.]+)%", text)
    assert float(trained) > 50
    assert "2 pieces of 20x28 pixels" in text
    assert "f_conv: operation 'reduce_sum'" in text and "global pooling" in text
    (base,) = re.findall(r"whole image +any +([\d.]+) ", text)
    assert float(base) > 50
    digits = dict(re.findall(r"^(labels|lost .*?)  +((?:\d ?){12})$", text, re.M))
    assert list(digits) == ["labels", "lost none", "lost data 0", "lost data 1"] + [
        "lost parity 0"
    ]
    assert digits["lost none"] == digits["lost parity 0"]  # the code is systematic
    assert pictures == 2


@pytest.mark.long
def test_segmentation(tmp_path):
    text, pictures = run("segmentation", tmp_path, "STEPS, EPOCHS = 20, 0.02")
    assert "(4000, 64, 64, 1) (4000, 64, 64)" in text
    assert "whole image, one device" in text and "the same, uncoded" in text
    assert "mean IoU" in text and "zero_fill" in text
    (base,) = re.findall(r"whole image +any +([\d.]+) ", text)
    assert float(base) > 50
    assert pictures == 2


@pytest.mark.long
def test_ablation(tmp_path):
    small = 'SCHEDULES, SEEDS, WIDTH = ["1", "2"], 2, 2\nBASE_EPOCHS, EPOCHS = 0.5, 0.1'
    text, pictures = run("ablation", tmp_path, small)
    assert re.findall(r"^(\d/\d) ", text, re.M) == ["1/2", "2/2"]
    assert "12 rows" in text  # 2 schedules; 2 trials and zero fill; 0 and 1 lost
    number = r"(-?[\d.]+) ± ([\d.]+)"
    rows = re.findall(rf"^(\d) +(\dx\d) +{number} +{number} +([\d.]+)$", text, re.M)
    assert [row[:2] for row in rows] == [("1", "3x3"), ("2", "5x5")]
    assert all(float(row[2]) <= float(row[4]) for row in rows)  # mean, worst
    assert pictures == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_the_text_beside_it(name):
    cells = lambda notebook: [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert cells(read(name)) == cells(jupytext.read(COLAB / f"{name}.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_opens_and_installs_from_the_address_of_the_project(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address = project["urls"]["Repository"]
    first, install = (cell.source for cell in read(name).cells[:2])
    path = address.removeprefix("https://github.com/")
    opens = f"colab.research.google.com/github/{path}/blob/main/colab/{name}.ipynb"
    assert f"[notebook]: https://{opens}" in first
    assert install.startswith(f'REPOSITORY = "{address}"')
    assert install == read(NAMES[0]).cells[1].source  # the same cell in all
    assert f"colab/{name}.ipynb" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_shows_nothing_of_the_machine(name):
    assert (COLAB / f"{name}.ipynb").stat().st_size < 300_000
    assert outputs(read(name))
    for output in outputs(read(name)):
        assert output.output_type != "error" and output.get("name") != "stderr"
        data = output.get("data", {})
        text = output.get("text", "") + data.get("text/plain", "")
        assert not re.search(r"/(tmp|home|root|work|Users|usr)/|[Ww]arning", text)


def test_the_installation_keeps_the_jax_that_is_there(monkeypatch):
    commands = []
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: commands.append(command)
    )
    exec(read(NAMES[0]).cells[1].source, {})
    clone, install = commands
    assert clone[:2] == ["git", "clone"]
    assert clone[-1] == sys.path[0] and f"./{clone[-1]}[quickstart]" in install
    pins = [f"{name}=={version(name)}" for name in ("jax", "jaxlib", "numpy")]
    assert install[-3:] == pins
