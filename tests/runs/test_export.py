"""The exported file: what `infer` gives, for any batch, where only JAX is installed."""

import dataclasses
import errno
import functools
import os
import pathlib
import subprocess
import sys
import warnings

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import coded_jax
from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.inference.pipeline import Examples, infer
from coded_jax.runs import export
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from tests.errors import refused
from tests.parameters import long

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "export.py"
CLASSES = 10
GREY, COLOUR = (28, 28, 1), (32, 32, 3)
MLP = Config(k=2, r=1, encoder_width=24, decoder_width=24)
SQUARES = dataclasses.replace(MLP, k=4, r=2, grid=(2, 2), decoder_width=4)
CONV = dataclasses.replace(
    SQUARES, encoder="conv", decoder="conv", encoder_width=3, dilations=(1, 2)
)
CHEAP = {"parity_pieces": "smaller", "encoder": "linear", "decoder": "sharpen"}
CASES = [
    (MLP, GREY, "systematic"),
    (CONV, COLOUR, "paper"),
    (Config(k=2, r=1, recipe="systematic", **CHEAP), GREY, "systematic"),
]
run_infer = jax.jit(infer, static_argnums=0)


def untrained(tree, seed=0):
    """Arrays of the shapes and dtypes of `tree`; nothing is compiled for them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: rng.normal(scale=0.1, size=x.shape).astype(x.dtype), tree
    )


def shapes_of(init, *args):
    return jax.eval_shape(lambda key: init(key, *args), jax.random.key(0))


@functools.cache
def make(config, image_shape, recipe):
    config = Config(**{**config.__dict__, "recipe": recipe})
    statistics = (0.4,) * image_shape[-1], (0.3,) * image_shape[-1]
    pipeline = build_pipeline(config, Examples(image_shape, *statistics), CLASSES)
    frozen = untrained(shapes_of(pipeline.base.init, image_shape, CLASSES))
    params = untrained(shapes_of(pipeline.init), seed=1)
    return CodedModel(pipeline, frozen, params, {"classes": CLASSES})


@functools.cache
def exported_bytes(config, image_shape, recipe):
    with warnings.catch_warnings(action="error"):
        return export.serialize(make(config, image_shape, recipe))


def random_images(batch, image_shape):
    return np.random.default_rng(batch).integers(
        0, 256, (batch, *image_shape), np.uint8
    )


def expected_logits(model, images, lost):
    mask = available(lost, model.pipeline.n)
    return run_infer(model.pipeline, model.frozen, model.params, images, mask)


def call(blob, *args):
    return jax.export.deserialize(bytearray(blob)).call(*args)


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_second_tail_is_exported(monkeypatch):
    settled, of = [], CodedModel.settled
    spied = lambda own: settled.append(own) or of(own)
    monkeypatch.setattr(CodedModel, "settled", spied)
    tuned = dataclasses.replace(MLP, tail="tuned", supervision=1.0)
    model, plain = (make(config, GREY, "systematic") for config in (tuned, MLP))
    blob, images = export.serialize(model), random_images(3, GREY)
    assert settled == [model]
    for lost in ((), (0,), (2,)):
        mask = available(lost, 3)
        logits = call(blob, images, mask)
        assert_close(logits, expected_logits(model, images, lost))
        inputs = (plain.pipeline, model.frozen, model.params[:-1])
        frozen = run_infer(*inputs, images, mask)
        assert np.allclose(logits, frozen, atol=1e-4) == (lost != (0,))


@pytest.mark.parametrize("config, shape, recipe", CASES)
@pytest.mark.parametrize("batch", [3, *long(64)])
def test_file_gives_what_infer_gives(config, shape, recipe, batch):
    model = make(config, shape, recipe)
    exported = jax.export.deserialize(bytearray(exported_bytes(config, shape, recipe)))
    pipeline = model.pipeline
    images = random_images(batch, shape)
    for lost in patterns_up_to(pipeline.n, pipeline.r):
        answer = exported.call(images, available(lost, pipeline.n))
        assert answer.shape == (batch, CLASSES) and answer.dtype == jnp.float32
        assert_close(answer, expected_logits(model, images, lost))


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "coded.bin").write_text("before")
    model = make(*CASES[0])
    for name in ("", ".", "missing/coded.bin"):
        with refused("output"):
            export.save(model, name)
    with monkeypatch.context() as patch, refused("output"):
        patch.setattr(os, "fsync", full)
        export.save(model, "coded.bin")
    assert os.listdir(tmp_path) == ["coded.bin"]
    assert (tmp_path / "coded.bin").read_text() == "before"
    path = export.save(model, "coded.bin")
    assert path == tmp_path / "coded.bin" and os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == export.serialize(model)


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def test_script_prints_a_program_that_runs_the_file_where_only_jax_is(
    finished, tmp_path
):
    file = tmp_path / "coded.bin"
    devices = "--xla_force_host_platform_device_count=4"  # the file is for one
    arguments = f"--workdir={finished}", f"--output={file}"
    done = run_python(str(SCRIPT), *arguments, JAX_PLATFORMS="cpu", XLA_FLAGS=devices)
    assert done.returncode == 0, done.stdout
    assert jax.export.deserialize(bytearray(file.read_bytes())).nr_devices == 1
    assert done.stdout.startswith(f"{file}: ") and "Warning" not in done.stdout
    _, import_line, program = done.stdout.partition("import jax.export\n")
    missing = "('coded_jax', 'flax', 'optax', 'orbax')"  # importing one fails
    block = f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
    elsewhere = run_python("-I", "-W", "error", "-c", block + import_line + program)
    assert elsewhere.returncode == 0, elsewhere.stdout
    images = np.zeros((8, *GREY), np.uint8)
    answer = np.asarray(coded_jax.load(finished, devices=1).classify(images, [0]))
    assert elsewhere.stdout == f"{answer}\n"
