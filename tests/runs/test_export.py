"""The exported file: what `infer` gives, for any batch, where only JAX is installed."""

import dataclasses
import errno
import functools
import os
import pathlib
import re
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
from coded_jax.inference.pipeline import infer
from coded_jax.runs import export, workdir
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.config import Config
from coded_jax.runs.regime import regime_of
from coded_jax.training import checkpoints
from coded_jax.training.steps import initial_state
from tests.parameters import long
from tests.scripts import run_script

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "export.py"
CLASSES = 10
GREY, COLOUR = (28, 28, 1), (32, 32, 3)
MLP = Config(k=2, r=1, encoder_width=24, decoder_width=24)
CONV = Config(
    k=4,
    r=2,
    grid=(2, 2),
    encoder="conv",
    decoder="conv",
    encoder_width=3,
    decoder_width=4,
    dilations=(1, 2),
)
CASES = [
    (config, shape, recipe)
    for config, shape in ((MLP, GREY), (CONV, COLOUR))
    for recipe in ("paper", "systematic")
]
SHARPEN = Config(
    k=4,
    r=2,
    grid=(2, 2),
    parity_pieces="smaller",
    encoder="linear",
    decoder="sharpen",
    decoder_width=4,
)
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
    pipeline = build_pipeline(config, image_shape, CLASSES, *statistics)
    frozen = untrained(shapes_of(pipeline.base.init, image_shape, CLASSES))
    params = untrained(shapes_of(pipeline.init), seed=1)
    return CodedModel(pipeline, frozen, params, {"classes": CLASSES})


def test_a_second_tail_is_exported(monkeypatch):
    settled = []
    monkeypatch.setattr(
        CodedModel,
        "settled",
        lambda own, of=CodedModel.settled: settled.append(own) or of(own),
    )
    tuned = dataclasses.replace(MLP, tail="tuned", supervision=1.0)
    model, plain = (make(config, GREY, "systematic") for config in (tuned, MLP))
    function = jax.export.deserialize(export.serialize(model)).call
    assert settled == [model]
    images = np.random.default_rng(2).integers(0, 256, (3, *GREY)).astype(np.uint8)
    for lost in ((), (0,), (2,)):
        mask = available(lost, 3)
        logits = function(images, mask)
        own = run_infer(model.pipeline, model.frozen, model.params, images, mask)
        np.testing.assert_allclose(logits, own, rtol=1e-4, atol=1e-5)
        inputs = (plain.pipeline, model.frozen, model.params[:-1])
        frozen = run_infer(*inputs, images, mask)
        assert np.allclose(logits, frozen, atol=1e-4) == (lost != (0,))


@pytest.mark.parametrize("asks", [False, True])
def test_sharpen_for_any_batch_and_with_a_head_that_asks_for_its_size(
    monkeypatch, asks
):
    """XLA's CPU program of `vmap` over images was killed here by batches of 64."""
    model = make(SHARPEN, GREY, "systematic")
    if asks:
        head = model.pipeline.base.head
        own = lambda variables, features: head(variables, features[: len(features)])
        base = model.pipeline.base._replace(head=own)
        model = model._replace(pipeline=model.pipeline._replace(base=base))
    said = []
    monkeypatch.setattr(export.logging, "warning", said.append)
    blob = export.serialize(model)
    assert len(said) == asks
    for batch in (2, 64):
        images = random_images(batch, GREY)
        for lost in ((), (1,), (0, 3), (2, 5)):
            logits = call(blob, images, available(lost, 6))
            assert_close(logits, expected_logits(model, images, lost))


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


@pytest.mark.parametrize(
    "config, shape, recipe", [*CASES[1:3], *long(CASES[0], CASES[3])]
)
@pytest.mark.parametrize("batch", [3, *long(1, 64)])
def test_file_gives_what_infer_gives(config, shape, recipe, batch):
    model = make(config, shape, recipe)
    exported = jax.export.deserialize(bytearray(exported_bytes(config, shape, recipe)))
    pipeline = model.pipeline
    images, answers = random_images(batch, shape), []
    for lost in patterns_up_to(pipeline.n, pipeline.r):
        answers.append(exported.call(images, available(lost, pipeline.n)))
        assert answers[-1].shape == (batch, CLASSES)
        assert answers[-1].dtype == jnp.float32
        assert_close(answers[-1], expected_logits(model, images, lost))
    # Pattern 0 loses nothing and pattern 1 the first data piece.
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_no_library_of_the_reader_is_called():
    for case in CASES[1:]:
        blob = jax.export.deserialize(bytearray(exported_bytes(*case)))
        called = set(re.findall(r"custom_call @(\w+)", blob.mlir_module()))
        assert called == {"shape_assertion"}  # JAX's own


def test_computed_in_bfloat16_but_float32_outside():
    model = make(*CASES[1])
    half = model._replace(pipeline=model.pipeline._replace(dtype="bfloat16"))
    images, mask = random_images(3, GREY), available([0], 3)
    logits = call(export.serialize(half), images, mask)
    assert logits.dtype == jnp.float32
    expected = run_infer(half.pipeline, half.frozen, half.params, images, mask)
    np.testing.assert_allclose(logits, expected, rtol=0.05, atol=0.05)
    full = expected_logits(model, images, [0])
    assert 0 < np.abs(logits - full).max() < 0.1 * np.abs(full).max()


RUN_ELSEWHERE = """
import sys

MISSING = ("coded_jax", "flax", "optax", "orbax")
sys.modules.update(dict.fromkeys(MISSING))  # importing one fails
import jax.export
import numpy as np

file, inputs, outputs = sys.argv[1:]
with open(file, "rb") as stream:
    coded = jax.export.deserialize(bytearray(stream.read()))
arrays = np.load(inputs)
logits = [coded.call(arrays["images"], mask) for mask in arrays["masks"]]
np.save(outputs, np.stack(logits))
assert not any(sys.modules[name] for name in MISSING)
"""


@pytest.mark.parametrize("case", [CASES[1], CASES[2]], ids=["mlp", "conv"])
def test_file_runs_where_the_package_is_missing(tmp_path, case):
    model = make(*case)
    file, inputs, outputs = (
        str(tmp_path / name) for name in ("coded.bin", "in.npz", "out.npy")
    )
    pathlib.Path(file).write_bytes(exported_bytes(*case))
    images = random_images(5, model.image_shape)
    patterns = patterns_up_to(model.pipeline.n, model.pipeline.r)
    masks = np.stack([available(lost, model.pipeline.n) for lost in patterns])
    np.savez(inputs, images=images, masks=masks)
    subprocess.run(
        [
            sys.executable,
            "-I",
            "-W",
            "error",
            "-c",
            RUN_ELSEWHERE,
            file,
            inputs,
            outputs,
        ],
        check=True,
        cwd=tmp_path,
    )
    for logits, lost in zip(np.load(outputs), patterns, strict=True):
        assert_close(logits, expected_logits(model, images, lost))


def test_file_is_for_three_platforms_any_batch_and_one_device():
    exported = jax.export.deserialize(bytearray(exported_bytes(*CASES[0])))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert exported.nr_devices == 1
    images, mask = exported.in_avals
    assert images.dtype == np.uint8 and images.shape[1:] == GREY
    assert jax.export.is_symbolic_dim(images.shape[0])
    assert mask.dtype == bool and mask.shape == (3, 1)
    (logits,) = exported.out_avals
    assert logits.dtype == np.float32 and logits.shape == (images.shape[0], CLASSES)


@pytest.mark.parametrize("case", [CASES[1], CASES[3]], ids=["mlp", "conv"])
@pytest.mark.parametrize("platform", export.PLATFORMS)
def test_every_accepted_platform_alone(case, platform):
    blob = export.serialize(make(*case), [platform])
    assert jax.export.deserialize(bytearray(blob)).platforms == (platform,)


def test_file_of_another_platform_is_refused():
    other_platform = "tpu" if jax.default_backend() == "cpu" else "cpu"
    blob = export.serialize(make(*CASES[0]), [other_platform])
    with pytest.raises(ValueError, match=other_platform):
        call(blob, random_images(1, GREY), available((), 3))


@pytest.mark.parametrize("images", [np.zeros((2, 32, 28, 1)), np.zeros((2, 28, 28, 1))])
def test_file_refuses_other_shapes_and_scaled_images(images):
    with pytest.raises(ValueError):
        call(exported_bytes(*CASES[0]), images, available((), 3))


@pytest.mark.parametrize("recipe", ["paper", "systematic"])
def test_nan_in_a_lost_slot_has_no_effect(recipe):
    model = make(MLP, GREY, recipe)
    clean = exported_bytes(MLP, GREY, recipe)
    (params,) = model.params
    encoder = jax.tree.map(lambda x: np.full_like(x, np.nan), params["encoder"])
    params = {**params, "encoder": encoder}
    dirty = export.serialize(model._replace(params=(params,)))
    images, parity_lost = random_images(3, GREY), available([2], 3)
    logits = call(dirty, images, parity_lost)
    np.testing.assert_array_equal(logits, call(clean, images, parity_lost))
    # Where the parity result is used, the answer is another one; not NaN everywhere,
    # since XLA's max pooling on CPUs drops NaN in jax 0.10 and 0.12.
    data_lost = available([0], 3)
    logits = call(dirty, images, data_lost)
    assert not np.array_equal(logits, call(clean, images, data_lost))


def test_arguments_can_be_used_again():
    exported = jax.export.deserialize(bytearray(exported_bytes(*CASES[0])))
    images = jnp.asarray(random_images(3, GREY))
    mask = jnp.asarray(available([1], 3))
    first = exported.call(images, mask)
    np.testing.assert_array_equal(first, exported.call(images, mask))
    np.testing.assert_array_equal(first, jax.jit(exported.call)(images, mask))


@pytest.mark.parametrize("case", CASES)
def test_same_bytes_for_the_same_model_and_no_path_in_them(case):
    model = make(*case)
    frozen, params = jax.device_put((model.frozen, model.params))
    names = ("include_full_tracebacks_in_locations", "traceback_in_locations_limit")
    before = [getattr(jax.config, f"jax_{name}") for name in names]
    blob = export.serialize(model._replace(frozen=frozen, params=params))
    assert [getattr(jax.config, f"jax_{name}") for name in names] == before
    assert blob == exported_bytes(*case)
    assert b"export.py" not in blob and b"site-packages" not in blob


@pytest.mark.parametrize("platforms", [(), "cpu", "", ["gpu"], ["cpu", "cpu"], [1]])
def test_wrong_platforms(platforms):
    message = r"^platforms: .* given, distinct names out of \['cpu', 'cuda', .*accepted"
    with pytest.raises(ValueError, match=message) as error:
        export.serialize(make(*CASES[0]), platforms)
    assert "\n" not in str(error.value)


def test_missing_flatbuffers_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ModuleNotFoundError) as error:
        export.save(make(*CASES[0]), tmp_path / "coded.bin")
    expected = "export needs flatbuffers: pip install 'coded_jax[export]'"
    assert str(error.value) == expected
    assert not os.listdir(tmp_path)


def test_save_replaces_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coded.bin").write_text("before")
    path = export.save(make(*CASES[0]), "coded.bin", ("cpu",))
    assert path == tmp_path / "coded.bin"
    assert path.read_bytes() == export.serialize(make(*CASES[0]), ("cpu",))
    assert os.listdir(tmp_path) == ["coded.bin"]


def test_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "coded.bin").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"^output: .*coded.bin' given, .*No space"):
        export.save(make(*CASES[0]), tmp_path / "coded.bin", ("cpu",))
    assert os.listdir(tmp_path) == ["coded.bin"]
    assert (tmp_path / "coded.bin").read_text() == "before"


@pytest.mark.parametrize("name", ["", ".", "missing/coded.bin"])
def test_wrong_output(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    message = f"^output: '{re.escape(name)}' given, a file in a folder that exists"
    with pytest.raises(ValueError, match=message):
        export.save(make(*CASES[0]), name)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What `coded_jax.load` needs of a finished run, but untrained."""
    folder = tmp_path_factory.mktemp("runs") / "untrained"
    model = make(MLP, GREY, MLP.recipe)
    inits = {
        "base": lambda key: model.pipeline.base.init(key, GREY, CLASSES),
        "code": model.pipeline.init,
    }
    for phase, init in inits.items():
        optimizer = regime_of(MLP, phase).optimizer(examples=1)
        state = untrained(shapes_of(functools.partial(initial_state, init, optimizer)))
        checkpoints.save(workdir.checkpoint_folder(folder, phase), 0, state)
    results = {
        "config": MLP.__dict__,
        "image_shape": GREY,
        "classes": CLASSES,
        "normalisation": {"mean": [0.4], "std": [0.3]},
        "steps": dict.fromkeys(inits, 0),
    }
    workdir.write_results(folder, results)
    return folder


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def test_script_writes_a_file_and_prints_a_program_that_runs_it(finished, tmp_path):
    file = tmp_path / "coded.bin"
    devices = "--xla_force_host_platform_device_count=4"  # the file is for one
    arguments = f"--workdir={finished}", f"--output={file}"
    done = run_python(str(SCRIPT), *arguments, JAX_PLATFORMS="cpu", XLA_FLAGS=devices)
    assert done.returncode == 0, done.stdout
    assert jax.export.deserialize(bytearray(file.read_bytes())).nr_devices == 1
    size = f"{file.stat().st_size / 1e6:.1f} MB"
    assert done.stdout.startswith(f"{file}: {size}, runs on cpu, cuda, tpu\n")
    assert f"jax {jax.__version__}, " in done.stdout and "Warning" not in done.stdout

    _, import_line, program = done.stdout.partition("import jax.export\n")
    block = RUN_ELSEWHERE.partition("import jax.export\n")[0]
    elsewhere = run_python("-I", "-W", "error", "-c", block + import_line + program)
    assert elsewhere.returncode == 0, elsewhere.stdout
    images = np.zeros((8, *GREY), np.uint8)
    answer = np.asarray(coded_jax.load(finished, devices=1).classify(images, [0]))
    assert elsewhere.stdout == f"{answer}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--platforms=gpu"], r"platforms: \['gpu'\] given, .*'cuda'.* accepted"),
        (["--output=missing/x"], "output: 'missing/x' given, a file in a folder"),
        (["--workdir=missing"], "workdir: '.*missing' given, .* finished run accepted"),
        (["x"], r"arguments: \['x'\] given, only --flags accepted"),
    ],
)
def test_script_errors_are_one_line(finished, tmp_path, arguments, message):
    file = tmp_path / "coded.bin"
    done = run_script("export", f"--workdir={finished}", f"--output={file}", *arguments)
    assert done.returncode == 1
    assert re.match(f"error: {message}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1 and not done.stdout
    assert not os.listdir(tmp_path)


def test_script_wants_both_flags():
    done = run_script("export")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not done.stdout
    assert re.match("error: workdir: not given, .*; output: not given", done.stderr)


def test_script_without_flatbuffers(finished, tmp_path):
    code = (
        "import runpy, sys; sys.modules['flatbuffers'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    output = f"--output={tmp_path / 'coded.bin'}"
    arguments = "-c", code, str(SCRIPT), f"--workdir={finished}", output
    done = run_python(*arguments, PYTHONPATH=str(SCRIPT.parent))
    assert done.returncode == 1
    assert done.stdout == (
        "error: export needs flatbuffers: pip install 'coded_jax[export]'\n"
    )
