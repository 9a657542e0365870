"""The command that prints and draws the plan of a flagfile."""

import functools

import pytest

from tests.scripts import run_script

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


@pytest.mark.parametrize(
    "arguments, message",
    [
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
