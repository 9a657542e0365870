"""The command that prints and draws the plan of a flagfile."""

import functools

import pytest

from tests.scripts import run_command, run_script

run_plan = functools.partial(run_script, "plan")


def test_script_prints_the_table_and_draws_the_pieces(tmp_path):
    picture = tmp_path / "pieces.png"
    done = run_plan(
        "--flagfile=experiments/flags/cifar10_vgg16.flags",
        "--image_shape=32x32x3",
        f"--picture={picture}",
    )
    assert done.returncode == 0, done.stderr
    for words in ("1-2", "32x18x3", "0x4", "16x8x8", "0.562", "5-13", "whole", "k=2"):
        assert words in done.stdout
    assert "…" not in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_plan_of_every_convolution(tmp_path):
    picture = tmp_path / "pieces.png"
    done = run_plan(
        "--base_model=lenet5",
        "--split=convolution",
        "--code=mds",
        "--image_shape=28x28x1",
        f"--picture={picture}",
    )
    assert done.returncode == 0, done.stderr
    # 24 rows of outputs need 28, half of them 16.
    for words in ("28x28x1", "16x28x1", "12x24x6", "k=2"):
        assert words in done.stdout
    assert picture.stat().st_size > 5000


def test_plan_of_a_whole_network_of_keras(tmp_path):
    picture = tmp_path / "pieces.png"
    done = run_plan(
        "--model=keras:MobileNet",
        "--image_shape=64x64x3",
        "--k=2",
        "--most_rounds=2",
        f"--picture={picture}",
    )
    assert done.returncode == 0, done.stderr
    words = ("64x64x3", "head", "chosen", "the same, uncoded", "whole image")
    for word in (*words, "k=2 data and r=1", "cannot be split: 1 x 'reduce_sum'"):
        assert word in done.stdout
    assert picture.stat().st_size > 5000


def test_plan_of_a_function_of_the_users(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import jax, jax.numpy as jnp\n"
        "def layer(w, x):\n"
        "    numbers = ('NHWC', 'HWIO', 'NHWC')\n"
        "    return jax.nn.relu(jax.lax.conv_general_dilated(\n"
        "        x, w, (1, 1), 'SAME', dimension_numbers=numbers))\n"
        "def network():\n"
        "    shapes = [jax.ShapeDtypeStruct((3, 3, 1, 4), 'float32')]\n"
        "    return lambda v, x: layer(v[0], x).mean((1, 2)), shapes\n"
        "def other():\n"
        "    return 3\n"
        "def ends():\n"
        "    raise SystemExit\n"
    )
    options = ("--image_shape=24x20x1", "--picture=", "--bandwidth=1e8")
    done = run_command("plan", "--model=mine:network", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "24x20x1" in done.stdout and "stages 1-1, grids 2x1" in done.stdout
    for name in ("mine:other", "mine:missing", "mine", "mine:ends"):
        done = run_command("plan", f"--model={name}", *options, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: model: '{name}' given, ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--model=keras:NoSuchNet", "--image_shape=32x32x3"],
            "model: 'keras:NoSuchNet' given, one of ['ConvNeXtBase'",
        ),
        (
            ["--model=keras:VGG16", "--image_shape=8x8x3"],
            "image_shape: (8, 8, 3) given, one that VGG16 takes accepted",
        ),
        (
            ["--model=keras:VGG16", "--image_shape=32x32x3", "--stages=1-2"],
            "stages: ((1, 2),) given, none with --model",
        ),
        (
            ["--model=keras:VGG16", "--code=mds", "--image_shape=32x32x3"],
            "code: 'mds' given, none with --model",
        ),
        (["--image_shape=32x32"], "image_shape: '32x32' given, HxWxC accepted"),
        (
            ["--image_shape=8x8x1"],
            "image_shape: (8, 8, 1) given, at least 16x16",
        ),
        (["--image_shape=28x28x1", "--k=5"], "k: 5 pieces along the rows"),
        (
            ["--image_shape=28x28x1", "--split=convolution"],
            "code: 'learned' given, one that is not trained, as mds,",
        ),
        (
            ["--image_shape=28x28x1", "--split=group"],
            "split: 'group' given, 'image' accepted",
        ),
        (["--image_shape=28x28x1", "--picture=/no/such/folder/a.png"], "picture: "),
    ],
)
def test_script_says_in_one_line_what_is_wrong(arguments, message):
    done = run_plan(*arguments)
    assert done.returncode == 1
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
