"""Losses: closed-form values, and nothing frozen is touched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coded_jax import codes, data, erasures, pipeline, splitting, tasks, training
from coded_jax.types import CodeShape

SHAPE, MEAN, STD = (28, 28, 1), (0.1,), (0.3,)


@pytest.fixture
def images():
    return jax.random.randint(jax.random.key(8), (6, *SHAPE), 0, 256).astype(jnp.uint8)


def make_pipeline(base, variables, make_code, k=2, r=1):
    plan = splitting.make_plan(base.f_conv, variables, SHAPE, (k, 1))
    shape = CodeShape(k, r, plan.piece_shape, plan.share_shape)
    return pipeline.Pipeline(base, plan, make_code(shape), MEAN, STD, r)


def learned(**options):
    return lambda shape: codes.learned_code(shape, **options)


def test_coded_loss_of_zero_fill_is_the_energy_of_the_lost_rows(lenet, images):
    pipe = make_pipeline(*lenet, codes.zero_fill)
    frozen = lenet[1]
    target = pipeline.base_features(pipe, frozen, images)
    for lost, rows in (((), slice(0, 0)), ((0,), slice(0, 2)), ((1,), slice(2, 4))):
        available = jnp.asarray(erasures.available(lost, 3))
        batch = {"images": images}
        losses = tasks.coded_losses(pipe, {}, frozen, batch, available)
        expected = np.square(target[:, rows]).sum((1, 2, 3)) / target[0].size
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("systematic", [True, False])
def test_gradient_reaches_the_code_and_nothing_frozen(lenet, images, kind, systematic):
    options = {"encoder_width": 4, "decoder_width": 8, "systematic": systematic}
    pipe = make_pipeline(*lenet, learned(encoder=kind, decoder=kind, **options))
    params = pipe.code.init(jax.random.key(1))
    available = jnp.asarray(erasures.available((0,), 3))

    def loss(params, frozen):
        batch = {"images": images}
        return tasks.coded_losses(pipe, params, frozen, batch, available).mean()

    grads, frozen_grads = jax.grad(loss, argnums=(0, 1))(params, lenet[1])
    assert all((g == 0).all() for g in jax.tree.leaves(frozen_grads))
    for part in ("encoder", "decoder"):
        kernels = [g for g in jax.tree.leaves(grads[part]) if g.ndim > 1]
        assert all((g != 0).any() for g in kernels)


def test_training_leaves_the_frozen_variables_bitwise_unchanged(lenet, images):
    pipe = make_pipeline(*lenet, learned())
    frozen = jax.tree.map(jnp.copy, lenet[1])
    before = jax.tree.map(np.array, frozen)
    dataset = dataset_of(images)
    task = tasks.code_task(pipe, frozen, dataset, tasks.adam(1e-2, 1e-2), 1, [()])
    state, _ = training.initial_state(task.init, task.optimizer, jax.random.key(0))
    started = jax.tree.map(np.array, state.params)
    arrays = tasks.device_arrays(None, dataset.train)
    for _ in range(3):
        state, metrics = training.train_steps(
            state,
            frozen,
            arrays,
            jnp.arange(6),
            jax.random.key(2),
            loss=task.loss,
            optimizer=task.optimizer,
            batch_size=3,
        )
    assert np.isfinite(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, before, frozen)
    changed = jax.tree.map(lambda a, b: (a != b).any(), started, state.params)
    assert all(jax.tree.leaves(changed))


def dataset_of(images):
    split = data.Split(np.asarray(images), np.arange(len(images), dtype=np.int32))
    return data.Dataset("tiny", 10, split, split, split, MEAN, STD)


def test_codes_overfit_one_batch(lenet, images):
    pipe = make_pipeline(*lenet, learned())
    available = jnp.asarray(erasures.available((1,), 3))
    params = pipe.code.init(jax.random.key(1))
    optimizer = optax.adam(3e-3)
    state = optimizer.init(params)
    step = jax.jit(
        jax.value_and_grad(
            lambda p: tasks.coded_losses(
                pipe, p, lenet[1], {"images": images}, available
            ).mean()
        )
    )
    losses = []
    for _ in range(60):
        loss, grads = step(params)
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        losses.append(float(loss))
    assert losses[-1] < 0.4 * losses[0]


def test_base_loss_is_cross_entropy(lenet, images):
    pipe = make_pipeline(*lenet, codes.zero_fill)
    labels = jnp.arange(6)
    x = (np.asarray(images) / 255 - MEAN[0]) / STD[0]
    base, variables = lenet
    logits = np.asarray(
        base.head(variables, base.f_conv(variables, jnp.asarray(x, jnp.float32)))
    )
    chosen = np.exp(logits)[np.arange(6), np.arange(6)] / np.exp(logits).sum(1)
    losses = tasks.base_losses(pipe, variables, {"images": images, "labels": labels})
    np.testing.assert_allclose(losses, -np.log(chosen), rtol=1e-5)


@pytest.mark.parametrize("k, r", [(2, 1), (4, 2)])
def test_kept_features_give_the_same_losses(lenet, images, k, r):
    pipe = make_pipeline(*lenet, learned(), k, r)
    frozen, params = lenet[1], pipe.code.init(jax.random.key(1))
    kept = tasks.with_features(pipe, frozen, {"images": images})
    assert kept["features"].shape == (6, k, 4 // k, 4, 16)
    available = erasures.sample(jax.random.key(3), k + r, r, 6)
    losses = jax.jit(functools.partial(tasks.coded_losses, pipe))
    for batch in (kept, {"images": images}):
        found = losses(params, frozen, batch, available)
        whole = pipeline.coded_features(pipe, frozen, params, images)
        merged = pipeline.reconstruct(pipe, params, whole, available)
        target = pipeline.base_features(pipe, frozen, images)
        expected = np.square(merged - target).mean((1, 2, 3))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_features_too_large_to_keep_are_computed_in_the_step(
    lenet, images, monkeypatch
):
    monkeypatch.setattr(tasks, "CACHE_BYTES", 6 * 256 * 4 - 1)
    pipe = make_pipeline(*lenet, learned())
    assert set(tasks.with_features(pipe, lenet[1], {"images": images})) == {"images"}
