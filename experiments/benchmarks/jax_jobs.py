"""The jobs of the benchmark in JAX, done by this project."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import profiling
from benchmarks.profiling import Prepared, compiled
from coded_jax import splitting
from coded_jax.codes import erasures
from coded_jax.devices import placement
from coded_jax.devices.meshes import make_mesh
from coded_jax.inference import pipeline, stages
from coded_jax.runs.build import build_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.regime import regime_of
from coded_jax.training import losses, steps, tasks
from coded_jax.types import Dataset, PyTree, Split

WIDTHS = (32, 128)  # of a conv encoder and of a joint conv decoder


class Subject(NamedTuple):
    """One code with random parameters, ready to run."""

    config: Config
    dataset: Dataset
    pipeline: pipeline.Pipeline
    frozen: PyTree
    params: PyTree


def noise(examples: int) -> Dataset:
    """Returns random images of MNIST's shape: speed does not depend on them."""
    pixels = np.random.default_rng(0).integers(256, size=(examples, 28, 28, 1))
    split = Split(pixels.astype(np.uint8), np.zeros(examples, np.int32))
    return Dataset("noise", 10, split, split, split, (0.5,), (0.29,))


def make_subject(
    dataset: Dataset,
    network: str,
    k: int,
    r: int,
    precision: str = "float32",
    devices: int | None = None,
    widths: tuple[int, int] = WIDTHS,
) -> Subject:
    """Returns a code with one network as encoder and decoder, and random parameters.

    Args:
      dataset: of the images.
      network: of encoder and decoder.
      k, r: data and parity pieces.
      precision: see `Config`.
      devices: how many; without a mesh if None.
      widths: of a conv encoder and decoder.

    Raises:
      ValueError: the images cannot be split so, or there are fewer devices.
    """
    config = Config(
        k=k,
        r=r,
        encoder=network,
        decoder=network,
        encoder_width=widths[0] if network == "conv" else None,
        decoder_width=widths[1] if network == "conv" else None,
        decoder_channels="joint",
        recipe="systematic",
        precision=precision,
    )
    image, classes = dataset.image_shape, dataset.classes
    mesh = make_mesh(config.n, devices) if devices else None
    coded = build_pipeline(config, image, classes, dataset.mean, dataset.std, mesh)
    init = jax.jit(coded.base.init, static_argnums=(1, 2))
    frozen = init(jax.random.key(0), image, classes)
    params = jax.jit(coded.init)(jax.random.key(1))
    frozen, params = placement.put_replicated(mesh, (frozen, params))
    return Subject(config, dataset, coded, frozen, params)


def sizes(s: Subject) -> dict[str, Any]:
    """Returns the sizes that another framework needs; see `torch_baseline.Job`."""
    plan, config = s.pipeline.stages[0].plan, s.config
    return {
        "network": config.encoder,
        "image": s.dataset.image_shape,
        "starts": plan.rows.starts,
        "window": plan.rows.window,
        "share": plan.share_shape,
        "surplus": plan.rows.surplus,
        "r": config.r,
        "widths": (config.encoder_width, config.decoder_width),
        "mean": s.dataset.mean,
        "std": s.dataset.std,
        "precision": config.precision,
        "classes": s.dataset.classes,
    }


def train(s: Subject, batch: int) -> Prepared:
    """Prepares training steps of the code, as `training.loop.fit` does them."""
    coded, images = s.pipeline, s.dataset.train
    put = functools.partial(placement.put_replicated, coded.mesh)
    arrays = tasks.device_arrays(coded.mesh, images)
    arrays = losses.with_targets(coded, s.frozen, arrays)
    optimizer = regime_of(s.config, "code").optimizer(len(images.labels))
    task = tasks.code_task(coded, s.frozen, s.dataset, optimizer, s.config, [()])
    init = lambda key: jax.tree.map(jnp.copy, s.params)
    state = put(steps.initial_state(init, optimizer, jax.random.key(0))[0])
    order = jax.random.permutation(jax.random.key(2), len(images.labels))
    rest = (s.frozen, arrays, *put((order, jax.random.key(3))))
    count = steps.steps_per_call()
    program, seconds = compiled(
        steps.train_steps,
        *(state, *rest),
        loss=task.loss,
        optimizer=optimizer,
        batch_size=batch,
        count=count,
    )
    job = profiling.carry(lambda state: program(state, *rest)[0], state)
    return Prepared(job, seconds, count, program)


def infer(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares inferences with nothing lost and with the first data piece lost."""
    put = functools.partial(placement.put_replicated, s.pipeline.mesh)
    masks = {
        name: put(erasures.available(lost, s.pipeline.n))
        for name, lost in (("nothing", ()), ("data 0", (0,)))
    }
    arguments = (s.frozen, s.params, put(s.dataset.train.images[:batch]))
    whole = jax.jit(functools.partial(pipeline.infer, s.pipeline))
    program, seconds = compiled(whole, *arguments, masks["nothing"])
    return {
        name: Prepared(profiling.repeat(program, *arguments, mask), seconds, 1, program)
        for name, mask in masks.items()
    }


class Parts(NamedTuple):
    """The three functions of a coded inference, and arguments for them."""

    encode: Callable[[PyTree, jax.Array], jax.Array]  # params, images -> queries
    f_conv: Callable[[PyTree, jax.Array], jax.Array]  # frozen, queries -> features
    decode: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    images: jax.Array
    queries: jax.Array
    features: jax.Array
    available: jax.Array


def make_parts(s: Subject, batch: int) -> Parts:
    """Returns encode, `f_conv` and decode as functions, with one result lost."""
    coded = s.pipeline
    (stage,) = coded.stages
    cast = lambda tree: jax.tree.map(lambda x: x.astype(coded.dtype), tree)

    def encode(params: PyTree, images: jax.Array) -> jax.Array:
        pieces = splitting.split(stage.plan, pipeline.inputs_of(coded, images))
        return stage.code.encode(cast(params[0]), pieces)

    def f_conv(frozen: PyTree, queries: jax.Array) -> jax.Array:
        of_pieces = jax.vmap(lambda pieces: stages.compute(stage, frozen, pieces))
        return splitting.cut(stage.plan, of_pieces(queries))

    def decode(params: PyTree, *arrived: jax.Array) -> jax.Array:
        return stages.reconstruct(stage, params[0], *arrived)

    images = jnp.asarray(s.dataset.train.images[:batch])
    queries = jax.jit(encode)(s.params, images)
    features = jax.jit(f_conv)(s.frozen, queries)
    available = jnp.asarray(erasures.available([0], coded.n))
    return Parts(encode, f_conv, decode, images, queries, features, available)


def parts(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares encode, `f_conv` and decode, each by itself, forward."""
    p = make_parts(s, batch)
    return {
        "encode": _prepare(p.encode, s.params, p.images),
        "f_conv": _prepare(p.f_conv, s.frozen, p.queries),
        "decode": _prepare(p.decode, s.params, p.features, p.available),
    }


def operations(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares the codec's networks and `f_conv`, forward and backward."""
    p, network = make_parts(s, batch), s.config.encoder
    encode = lambda params: p.encode(params, p.images)[s.config.k :]
    f_conv = lambda queries: p.f_conv(s.frozen, queries)
    decode = lambda params, features: p.decode(params, features, p.available)
    return {
        f"{network} encoder": _backward(encode, s.params),
        f"{network} decoder": _backward(decode, s.params, p.features),
        "f_conv": _backward(f_conv, p.queries),
    }


def references(s: Subject, side: int, length: int) -> dict[str, Prepared]:
    """Prepares a matrix product, adding to an array in place, and Adam on the code."""
    x = jax.random.normal(jax.random.key(0), (side, side), s.pipeline.dtype)
    optimizer = regime_of(s.config, "code").optimizer(len(s.dataset.train.labels))

    def update(state: tuple, grads: PyTree) -> tuple:
        params, moments = state
        updates, moments = optimizer.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments

    grads = jax.tree.map(lambda x: 1e-3 * jnp.ones_like(x), s.params)
    state = jax.tree.map(jnp.copy, (s.params, optimizer.init(s.params)))
    adam, adam_seconds = compiled(jax.jit(update, donate_argnums=0), state, grads)
    array = jnp.zeros(length)
    add, add_seconds = compiled(jax.jit(lambda x: x + 1, donate_argnums=0), array)
    return {
        "matrix product": _prepare(jnp.matmul, x, x),
        "add in place": Prepared(profiling.carry(add, array), add_seconds),
        "Adam": Prepared(
            profiling.carry(lambda x: adam(x, grads), state), adam_seconds
        ),
    }


def work(s: Subject, batch: int) -> dict[str, int]:
    """Returns floating point operations of `operations`, as stock layers need them.

    A forward pass, and the gradients by the weights and by the inputs, each the same
    again. Nobody needs those of `f_conv` by its weights or of images.
    """
    plan, network = s.pipeline.stages[0].plan, s.config.encoder
    (h, w, c), (m, m2, _) = plan.piece_shape, plan.share_shape
    places = {"encoder": c * h * w, "decoder": m * m2}
    if network == "mlp":
        places = {"encoder": c, "decoder": 1}
    flops = {}
    for name, positions in places.items():
        kernels = [x.shape for x in jax.tree.leaves(s.params[0][name]) if x.ndim > 1]
        flops[f"{network} {name}"] = 3 * profiling.products(batch * positions, kernels)
    first = layers(s.params[0]["encoder"])[0]["kernel"].shape
    of_images = profiling.products(batch * places["encoder"], [first])
    flops[f"{network} encoder"] -= of_images
    flops["f_conv"] = 0
    for layer in layers(s.frozen["f_conv"]):
        kernel = layer["kernel"].shape
        h, w = h - kernel[0] + 1, w - kernel[1] + 1
        pieces = batch * s.pipeline.n
        flops["f_conv"] += 2 * profiling.products(pieces * h * w, [kernel])
        h, w = h // 2, w // 2
    return flops


def layers(tree: PyTree) -> list[dict[str, Any]]:
    """Returns the layers below `tree`, in order."""
    if "kernel" in tree:
        return [tree]
    return [layer for name in sorted(tree) for layer in layers(tree[name])]


def _prepare(f: Callable, *args: Any) -> Prepared:
    program, seconds = compiled(jax.jit(f), *args)
    return Prepared(profiling.repeat(program, *args), seconds, 1, program)


def _backward(f: Callable, *args: Any) -> Prepared:
    """Prepares `f` and its gradients, for a fixed gradient of its outputs."""
    outputs = jax.eval_shape(f, *args)
    ones = jnp.ones(outputs.shape, outputs.dtype)  # an argument: XLA must not know them

    def both(ones: jax.Array, *args: Any) -> tuple:
        y, pullback = jax.vjp(f, *args)
        return y, pullback(ones)

    return _prepare(both, ones, *args)
