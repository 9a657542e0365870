"""Losses: closed-form values, and nothing frozen is touched."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coded_jax import codes
from coded_jax.codes import erasures
from coded_jax.data import augmentation
from coded_jax.inference import pipeline
from coded_jax.inference.pipeline import Examples
from coded_jax.models.modules import ConvNorm, base_model
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.splitting.plan import make_plan
from coded_jax.training import losses as training_losses
from coded_jax.training import optimizers, steps, tasks
from coded_jax.training.config import TrainConfig, require_patterns
from coded_jax.training.exact_targets import require_nonnegative, with_targets
from coded_jax.training.loop import SCORE
from coded_jax.types import CodeShape, Dataset, Split, chain
from tests import pipelines
from tests.errors import refused
from tests.models.published import random_variables
from tests.pipelines import one_stage

SHAPE, MEAN, STD = (28, 28, 1), (0.1,), (0.3,)

# Compiled as a whole: op by op takes several times as long.
base_features = jax.jit(pipeline.base_features, static_argnames="pipeline")
base_losses = jax.jit(training_losses.base_losses, static_argnames="pipeline")
coded_losses = jax.jit(
    training_losses.coded_losses, static_argnames=("pipeline", "config")
)


def images_of(shape):
    return jax.random.randint(jax.random.key(8), (6, *shape), 0, 256).astype(jnp.uint8)


@pytest.fixture
def images():
    return images_of(SHAPE)


def make_pipeline(base, variables, make_code, k=2, r=1):
    plan = make_plan(base.f_conv, variables, SHAPE, (k, 1))
    shape = CodeShape(k, r, plan.piece_shape, plan.share_shape)
    return one_stage(base, plan, make_code(shape), MEAN, STD, r)


def learned(**options):
    return functools.partial(pipelines.learned, **options)


@pytest.fixture
def losses_of(lenet):
    """Losses where zeros stand in for the second half of the features."""
    pipe = make_pipeline(*lenet, codes.zero_fill)
    available = jnp.asarray(erasures.available((1,), 3))

    def losses(batch, config=None, **changes):
        changed = pipe._replace(base=pipe.base._replace(**changes))
        return coded_losses(changed, ({},), lenet[1], batch, available, config=config)

    features = np.asarray(base_features(pipe, lenet[1], images_of(SHAPE)))
    return losses, features, features * (np.arange(4) < 2)[:, None, None]


def test_distillation_adds_the_error_of_a_hidden_layer(lenet, images, losses_of):
    base, frozen = lenet
    losses, features, kept = losses_of
    batch = {"images": images}
    plain = losses(batch)
    kernel = frozen["head"]["params"]["Dense_0"]["kernel"]
    hidden = np.square((features - kept).reshape(6, -1) @ kernel).mean(1)
    with_hidden = losses(batch, TrainConfig(distillation=0.5))
    np.testing.assert_allclose(with_hidden, plain + 0.5 * hidden, rtol=1e-4)
    # Without a hidden layer that is known, the logits.
    apart = base.head(frozen, kept) - base.head(frozen, features)
    with_logits = losses(batch, TrainConfig(distillation=2.0), hidden=None)
    expected = plain + 2 * np.square(apart).mean(1)
    np.testing.assert_allclose(with_logits, expected, rtol=1e-4)


def test_supervision_adds_the_cross_entropy_with_the_labels(lenet, images, losses_of):
    losses, _, kept = losses_of
    labels = np.array([3, 1, 4, 1, 5, -1], np.int32)  # none of the last
    batch = {"images": images, "labels": labels}
    logs = jax.nn.log_softmax(lenet[0].head(lenet[1], kept))
    entropies = np.where(labels < 0, 0, -logs[np.arange(6), labels])
    supervised = losses(batch, TrainConfig(supervision=2.0, distillation=0.5))
    expected = losses(batch, TrainConfig(distillation=0.5)) + 2 * entropies
    np.testing.assert_allclose(supervised, expected, rtol=1e-4)


def test_an_epoch_is_scored_on_the_validation_split(lenet, images):
    """Catches one that is chosen on the test split, or on the training images."""
    base, variables = lenet
    pipe = make_pipeline(base, variables, codes.zero_fill)
    logits = base.head(variables, base_features(pipe, variables, images))
    right = np.asarray(logits.argmax(-1), np.int32)
    part = lambda labels: Split(np.asarray(images), labels)
    wrong = part((right + 1) % 10)
    for validation, score in ((right, 1.0), (np.r_[right[:3], wrong.labels[3:]], 0.5)):
        dataset = Dataset("own", 10, wrong, part(validation), wrong, MEAN, STD)
        task = tasks.base_task(pipe, dataset, optax.sgd(0.1))
        assert task.score(variables)[SCORE] == pytest.approx(score)
        task = tasks.code_task(pipe, variables, dataset, optax.sgd(0.1), patterns=[()])
        assert task.score(({},))[SCORE] == pytest.approx(score)


MLP = {"encoder": "mlp", "decoder": "mlp", "decoder_width": 8}
CONV = {"encoder": "conv", "decoder": "conv", "dilations": (1, 2)}
SMALLER = {"parity_pieces": "smaller", "encoder": "linear", "decoder": "sharpen"}
TWO_STAGES = {"stages": ((1, 1), (2, 2)), "recipe": "paper", **MLP}
TRAINED = {
    "systematic": {"recipe": "systematic", **MLP},
    "paper": {"recipe": "paper", **MLP},
    "convolutions": {"recipe": "paper", **CONV},
    "smaller parity": {"recipe": "systematic", **SMALLER},
    "end to end": TWO_STAGES,
    "parity model": {"code": "parity_model"},
    "group": {"code": "parity_model", "split": "group"},
    "tail": {"recipe": "systematic", **SMALLER, "tail": "tuned", "supervision": 1.0},
    "answers": {"recipe": "systematic", **MLP, "distillation": 1.0, "supervision": 1.0},
}


def small(*widths, **settings):
    """A network of convolutions for images of 8x8, with a code."""
    own = {"dataset": "own", "base_model": "own", "encoder_width": 4}
    config, base = Config(**own, **settings), base_model([*map(ConvNorm, widths)])
    pipe = build_pipeline(config, Examples((8, 8, 1), MEAN, STD), 10, base=base)
    return config, pipe, random_variables(base, (8, 8, 1))


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_reaches_the_code_and_nothing_frozen(name):
    """Of the loss of every kind of code, for losses that each code draws."""
    config, pipe, variables = small(3, 4, **TRAINED[name])
    shape = pipe.examples.shape
    params = jax.jit(pipe.init)(jax.random.key(1))
    group = (config.k,) if config.split == "group" else ()
    rows = shape[0] * (config.k if group else 1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, rows, *shape[1:]), np.uint8)
    labels = rng.integers(0, 10, (12, *group)).astype(np.int32)
    batch = {"images": jnp.asarray(images), "labels": jnp.asarray(labels)}
    loss = tasks.code_loss(pipe, config)

    def mean_loss(params, frozen):
        return loss(params, frozen, batch, jax.random.key(2))[0].mean()

    grads, of_frozen = jax.jit(jax.grad(mean_loss, (0, 1)))(params, variables)
    assert all((g == 0).all() for g in jax.tree.leaves(of_frozen))
    # The parity model's own statistics and head are not trained.
    kernels = {
        jax.tree_util.keystr(path): bool((g != 0).any())
        for path, g in jax.tree_util.tree_leaves_with_path(grads)
        if g.ndim > 1 and not {"head", "batch_stats"} & {k.key for k in path[1:]}
    }
    assert kernels and all(kernels.values()), kernels


def dataset_of(images):
    split = Split(np.asarray(images), np.arange(len(images), dtype=np.int32))
    return Dataset("tiny", 10, split, split, split, MEAN, STD)


# --- chains of stages -----------------------------------------------------------------


@functools.cache
def make_chain(make=codes.zero_fill):
    """Two stages of two layers each; 28 rows of features become 14, in two shares."""
    base = base_model([ConvNorm(3), ConvNorm(4), ConvNorm(5, stride=2), ConvNorm(4)])
    variables = random_variables(base, SHAPE)
    own = {"dataset": "own", "base_model": "own"}
    config = Config(**own, stages=((1, 2), (3, 4)))
    pipe = build_pipeline(config, Examples(SHAPE, MEAN, STD), 10, base=base)
    assert pipe.stages[1].plan.rows.out == 14
    return pipe.with_codes(lambda shape, code: make(shape)), variables


@pytest.mark.parametrize("kept", [True, False])
def test_losses_of_a_chain_of_zero_fill(images, kept):
    pipe, variables = make_chain()
    masks = np.ones((2, 3, 6), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[1, 1, 1] = masks[1, 0, 2] = False
    masks[:, 2, 3] = False  # parity, which is of no use
    batch = {"images": images}
    if kept:
        batch = with_targets(pipe, variables, batch)
        shapes = [target.shape for target in batch["targets"]]
        assert shapes == [(6, 28, 28, 4), (6, 14, 14, 4)]
    losses = coded_losses(pipe, ({}, {}), variables, batch, masks)
    first, second = (jax.jit(chain(pipe.base.blocks[i : i + 2])) for i in (0, 2))
    x = np.asarray(images / np.float32(255) - MEAN[0], np.float32) / STD[0]
    exact = [np.asarray(first(variables, x))]
    exact.append(np.asarray(second(variables, exact[0])))
    made = [np.array(exact[0])]
    made[0][0, :14] = made[0][1, 14:] = 0
    made.append(np.array(second(variables, made[0])))
    made[1][1, 7:] = made[1][2, :7] = 0
    expected = sum(
        np.square(a - b).mean((1, 2, 3)) / np.square(a).mean()
        for a, b in zip(exact, made, strict=True)
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-6)
    # Image 0 lost something in the first stage only: the second one suffers, too, as
    # it is given what the first one reconstructed.
    alone = np.square(exact[0][0] - made[0][0]).mean() / np.square(exact[0]).mean()
    assert losses[0] > 1.1 * alone
    assert losses[3:].max() < 1e-6


@pytest.mark.parametrize("systematic", [True, False])
@pytest.mark.parametrize("stage_losses", ["held", "per_stage"])
def test_what_a_code_task_loses(images, monkeypatch, stage_losses, systematic):
    pipe, variables = make_chain()
    pipe = pipe.with_codes(lambda shape, code: code._replace(systematic=systematic))
    seen = []
    note = lambda *args, **_: seen.append(args[4]) or jnp.zeros(600)
    monkeypatch.setattr(tasks, "coded_losses", note)
    many = np.tile(images, (100, 1, 1, 1))
    config = TrainConfig(stage_losses=stage_losses)
    optimizer = optimizers.adam(1e-3, 0.0)
    task = tasks.code_task(pipe, variables, dataset_of(many), optimizer, config, [()])
    task.loss(({}, {}), variables, {"images": many}, jax.random.key(0))
    (mask,) = seen
    held = stage_losses == "held"
    assert mask.shape == ((3, 600) if held else (2, 3, 600))
    lost = ~np.asarray(mask).reshape(-1, 3, 600)
    if systematic:  # always one of the two data pieces
        assert (lost[:, :2].sum(axis=1) == 1).all() and not lost[:, 2].any()
        alike = (lost == lost[:1]).all(axis=(0, 1)).mean()
        assert abs(alike - (1 if held else 1 / 2)) < 0.08
    else:  # half of the images lose nothing in one stage, a quarter in both
        nothing = (~lost).all(axis=(0, 1)).mean()
        assert abs(nothing - (1 / 2 if held else 1 / 4)) < 0.07


# --- base models with batch norm ------------------------------------------------------


@functools.cache
def make_normed():
    base = base_model([ConvNorm(3), ConvNorm(4, stride=2)])
    variables = random_variables(base, SHAPE)
    plan = make_plan(base.f_conv, variables, SHAPE, (2, 1))
    code = codes.zero_fill(CodeShape(2, 1, plan.piece_shape, plan.share_shape))
    return one_stage(base, plan, code, MEAN, STD, 1), variables


def trained_by_hand(variables, x):
    """Logits of `make_normed` in training, and the means and variances it has then."""
    updated_stats = {}
    for name, stride in (("block_1", 1), ("block_2", 2)):
        params, stats = (variables[name][kind] for kind in ("params", "batch_stats"))
        x = jax.lax.conv_general_dilated(
            x,
            params["Conv_0"]["kernel"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        norm, stats = params["BatchNorm_0"], stats["BatchNorm_0"]
        updated_stats[name] = {
            "mean": 0.9 * stats["mean"] + 0.1 * mean,
            "var": 0.9 * stats["var"] + 0.1 * var,
        }
        along = lambda v: v[None, None, None]
        x = along(norm["scale"]) * (x - along(mean)) / along(jnp.sqrt(var + 1e-5))
        x = jnp.maximum(x + along(norm["bias"]), 0)
    layer = variables["head"]["params"]["logits"]
    return x.mean((1, 2)) @ layer["kernel"] + layer["bias"][None], updated_stats


def batch_of(images):
    return {"images": images, "labels": jnp.arange(len(images), dtype=jnp.int32)}


def test_batch_norm_is_trained_on_the_statistics_of_the_batch(images):
    pipe, variables = make_normed()
    x = np.asarray(images / np.float32(255) - MEAN[0], np.float32) / STD[0]
    logits, statistics = jax.jit(trained_by_hand)(variables, x)
    batch = batch_of(images)
    losses, updated_stats = base_losses(pipe, variables, batch)
    expected = -np.asarray(jax.nn.log_softmax(logits))[np.arange(6), np.arange(6)]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    norm_stats = {
        name: b["batch_stats"]["BatchNorm_0"] for name, b in updated_stats.items()
    }
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), norm_stats, statistics
    )
    # A step takes them over.
    optimizer = optax.sgd(0.1)
    task = tasks.base_task(pipe, dataset_of(images), optimizer)
    init = lambda key: jax.tree.map(jnp.array, variables)
    state, _ = steps.initial_state(init, optimizer, jax.random.key(0))
    static = {"loss": task.loss, "optimizer": optimizer, "batch_size": 6}
    order, key = jnp.arange(6), jax.random.key(2)
    state, _ = steps.train_steps(state, {}, batch, order, key, **static)
    for name, block in updated_stats.items():
        taken = state.params[name]["batch_stats"]
        chex.assert_trees_all_close(taken, block["batch_stats"], rtol=1e-3, atol=1e-5)
        weights = state.params[name]["params"]["Conv_0"]["kernel"]
        assert (weights != variables[name]["params"]["Conv_0"]["kernel"]).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_base_loss_is_the_cross_entropy_of_smoothed_labels(lenet, images, smoothing):
    pipe = make_pipeline(*lenet, codes.zero_fill)
    logits = lenet[0].head(lenet[1], base_features(pipe, lenet[1], images))
    logs = np.asarray(jax.nn.log_softmax(logits))
    of_labels = logs[np.arange(6), np.arange(6)]
    expected = -(1 - smoothing) * of_labels - smoothing * logs.mean(1)
    losses, updated_stats = base_losses(pipe, lenet[1], batch_of(images), smoothing)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert updated_stats == {}


@pytest.mark.parametrize("of_code", [True, False], ids=["code", "base model"])
def test_training_images_are_augmented_anew_in_every_step(images, monkeypatch, of_code):
    pipe, variables = make_chain() if of_code else make_normed()
    seen = []

    def note(*args, **_):
        seen.append(args[3 if of_code else 2])
        return jnp.zeros(6) if of_code else (jnp.zeros(6), {})

    monkeypatch.setattr(tasks, "coded_losses" if of_code else "base_losses", note)
    dataset, optimizer = dataset_of(images), optax.sgd(0.1)
    if of_code:
        config = TrainConfig(code_augmentation="shift")
        task = tasks.code_task(pipe, variables, dataset, optimizer, config, [()])
    else:
        task = tasks.base_task(pipe, dataset, optimizer, "shift")
    for i in range(2):
        key = jax.random.key(i)
        task.loss(({}, {}), variables, batch_of(images), key)
        key = jax.random.split(key)[0] if of_code else key
        expected = augmentation.shift(key, images)
        np.testing.assert_array_equal(seen[i]["images"], expected)


CHAIN = Config(
    base_model="vgg16",
    base_width=1 / 16,
    stages=((1, 2), (3, 4)),
    recipe="systematic",
)


def draw(count, **settings):
    """A network of two stages, and which results of `count` images are lost."""
    config = dataclasses.replace(CHAIN, **settings)
    pipe = build_pipeline(config, Examples((28, 28, 1), (0.13,), (0.31,)), 10)
    masks = tasks.sample_erasures(jax.random.key(0), pipe, count, config)
    assert masks.shape == (2, 3, count)
    return pipe, config, ~np.asarray(masks)


def test_where_parity_moves_patterns_begin_at_any_stage():
    _, _, lost = draw(400, parity_moves=True)
    assert (lost[1].sum(axis=0) == 1).all() and (lost[1, :2].any(axis=0)).all()
    begins = lost[0].any(axis=0)
    assert 150 < begins.sum() < 250
    np.testing.assert_array_equal(lost[0], lost[1] & begins)


def test_patterns_that_begin_later_are_trained_so():
    _, _, lost = draw(400, stage_losses="later", beyond=0.5)
    assert (lost[0] <= lost[1]).all() and lost[1, :2].any(axis=0).all()
    assert 150 < lost[0].any(axis=0).sum() < 250
    assert 150 < (lost[1].sum(axis=0) == 2).sum() < 250


def test_stages_that_lose_nothing_are_left_out_of_losses(monkeypatch):
    later = {"stages": ((1, 1), (2, 2), (3, 3)), "stage_losses": "later", "beyond": 0.2}
    settings = TRAINED["systematic"] | later | {"distillation": 0.5}
    config, pipe, variables = small(3, 4, 4, **settings)
    params = jax.jit(pipe.init)(jax.random.key(0))
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), np.uint8)
    loss = tasks.code_loss(pipe, config)
    inputs = (variables, {"images": images}, jax.random.key(1))
    value = lambda params: loss(params, *inputs)[0].mean()
    left_out = jax.jit(jax.value_and_grad(value))(params)
    assert tasks._starts(pipe, config, 10) == (0, 4, 7)
    other = pipe.with_codes(lambda shape, code: code._replace(systematic=False))
    assert tasks._starts(other, config, 10) == (0,)
    all_stages = lambda *inputs, config, starts: training_losses.coded_losses(
        *inputs, config=config
    )
    monkeypatch.setattr(tasks, "coded_losses", all_stages)
    whole = jax.jit(jax.value_and_grad(lambda p: value(p)))(params)
    chex.assert_trees_all_close(left_out, whole, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_trained_is_refused(lenet, images):
    pipe = make_pipeline(*lenet, codes.zero_fill)
    unknown = TrainConfig(pattern_weights=(((7,), 2.0),))
    for name, config in (("l", TrainConfig(l=2)), ("pattern_weights", unknown)):
        with refused(name):
            tasks.sample_erasures(jax.random.key(0), pipe, 4, config)
    with refused("beyond"):
        require_patterns(TrainConfig(beyond=0.1), 1, 2)
    with refused("parity_moves"):
        config = Config(code="parity_model", parity_moves=True)
        build_pipeline(config, Examples(SHAPE, MEAN, STD), 10)
    base, variables = lenet
    require_nonnegative(pipe, variables, images)
    base = base._replace(blocks=base.blocks[:1])  # ends before the ReLU
    with refused("nonnegative"):
        signed = make_pipeline(base, variables, codes.zero_fill)
        require_nonnegative(signed, variables, images)
