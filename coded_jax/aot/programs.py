"""The programs of an experiment, compiled for devices that need not be at hand."""

from __future__ import annotations

import contextlib
import functools
import math
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import SingleDeviceSharding as OnOneDevice

from coded_jax.aot.chips import chip_of
from coded_jax.aot.compiled import Figures, figures_of
from coded_jax.aot.topologies import compiler_options
from coded_jax.checks import first_line, require
from coded_jax.data.groups import infer_images, inputs_of_images
from coded_jax.devices.meshes import memory_of_device, padded_size
from coded_jax.devices.placement import batch_spec
from coded_jax.evaluation import predictions
from coded_jax.evaluation.predictions import CHUNK
from coded_jax.inference.pipeline import Pipeline, Results, infer
from coded_jax.runs import workdir
from coded_jax.runs.build import build_pipeline, uncoded_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.phases import BASE, regime_of
from coded_jax.service import parts
from coded_jax.training import exact_targets, tasks
from coded_jax.training.steps import (
    CALL_STEPS,
    MAPS_SEEDS,
    initial_state,
    train_steps,
)
from coded_jax.types import PyTree


class Sizes(NamedTuple):
    """The sizes of a data set, all that its programs depend on.

    Attributes:
      image_shape: `(H, W, C)`.
      classes: how many there are.
      examples: training images.
    """

    image_shape: tuple[int, int, int]
    classes: int
    examples: int


class Program(NamedTuple):
    """A program that can be compiled.

    Attributes:
      name: what it does.
      images: that one call computes; of a loop, that its body computes.
      mesh: its devices.
      dtype: in which it computes.
      lower: makes it, as `jax.stages.Lowered`.
    """

    name: str
    images: int
    mesh: Mesh
    dtype: str
    lower: Callable[[], jax.stages.Lowered]


class Compiled(NamedTuple):
    """The outcome of compiling a program.

    Attributes:
      name, images, dtype: as of `Program`.
      mesh: devices along piece and data.
      seconds: that the compiler took.
      figures: of one device; None where it was refused.
      refusal: the compiler's words in one line; None where it compiled.
    """

    name: str
    images: int
    dtype: str
    mesh: tuple[int, int]
    seconds: float
    figures: Figures | None = None
    refusal: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON has them."""
        figures = self.figures.to_json() if self.figures else None
        return self._asdict() | {"figures": figures, "mesh": list(self.mesh)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Compiled:
        """Returns the record that `to_json` has written."""
        figures = fields["figures"] and Figures.from_json(fields["figures"])
        return cls(**{**fields, "figures": figures, "mesh": tuple(fields["mesh"])})


def compile_program(program: Program) -> Compiled:
    """Compiles a program, and reads its figures."""
    figures = refusal = None
    begun = time.perf_counter()
    try:
        lowered, begun = program.lower(), time.perf_counter()
        compiled = lowered.compile(compiler_options(program.mesh.devices.flat[0]))
        seconds = time.perf_counter() - begun
        figures = figures_of(compiled)
    except Exception as error:  # of any kind: each compiler has its own
        seconds, refusal = time.perf_counter() - begun, first_line(error)
    return Compiled(
        program.name,
        program.images,
        program.dtype,
        mesh=program.mesh.devices.shape,
        seconds=seconds,
        figures=figures,
        refusal=refusal,
    )


KINDS = ("inference", "training", "evaluation", "local")
"""Kinds of programs: inference on the mesh, training steps, evaluation, and those of
the local engine, each of one device."""


def programs_of(
    config: Config,
    sizes: Sizes,
    mesh: Mesh,
    batches: Sequence[int],
    kinds: Collection[str] = KINDS,
) -> Iterator[Program]:
    """Yields the programs of an experiment on a mesh.

    They are coded and uncoded inference; the training steps of base model and code, one
    and `CALL_STEPS` in a loop, and of several seeds at once; the two of the evaluation;
    and what the local engine runs on one device each: encoding, a piece of each stage,
    decoding.

    Args:
      config: the experiment.
      sizes: of its data set.
      mesh: from `make_mesh`, of described devices say.
      batches: images of an inference.
      kinds: which of `KINDS`.

    Raises:
      ValueError: see `build_pipeline`, or a kind is not one of `KINDS`.
    """
    known = bool(kinds) and set(kinds) <= set(KINDS)
    require("kinds", ",".join(kinds), known, f"some of {', '.join(KINDS)}")
    subject = Subject(config, sizes, mesh)
    if "inference" in kinds:
        for batch in batches:
            yield subject.inference(batch)
            yield subject.uncoded_inference(batch)
    if "training" in kinds:
        yield from subject.training()
    if "evaluation" in kinds:
        yield from subject.evaluation()
    if "local" in kinds:
        for batch in batches:
            yield from subject.parts(batch)


def main_programs(
    config: Config, sizes: Sizes, mesh: Mesh, batch: int
) -> Iterator[Program]:
    """Yields the few programs that say most about an experiment on a mesh.

    They are coded and uncoded inference, and the code's training step if it has one.

    Args:
      config, sizes, mesh: as of `programs_of`.
      batch: images of an inference.

    Raises:
      ValueError: see `build_pipeline`.
    """
    subject = Subject(config, sizes, mesh)
    yield subject.inference(batch)
    yield subject.uncoded_inference(batch)
    if jax.tree.leaves(subject.params):
        yield subject.code_step("training step, code", _memory(mesh))


def _memory(mesh: Mesh) -> int:
    """Returns the bytes of a device: its chip's where that is known, or as it says."""
    chip = chip_of(mesh.devices.flat[0].device_kind)
    return memory_of_device(mesh) if chip is None else int(chip.memory)


def exchanged(config: Config, sizes: Sizes) -> list[list[int]]:
    """Returns, for each coded stage, the bytes of a query and of a share of one image.

    Args:
      config, sizes: as of `programs_of`.
    """
    pipeline = _pipeline_of(config, sizes)
    itemsize = jnp.dtype(pipeline.dtype).itemsize
    shapes = [(stage.plan.piece_shape, stage.result_shape) for stage in pipeline.stages]
    return [[itemsize * math.prod(shape) for shape in pair] for pair in shapes]


def _pipeline_of(config: Config, sizes: Sizes, mesh: Mesh | None = None) -> Pipeline:
    """Builds the coded inference; what pixels are normalised by changes no program."""
    channels = sizes.image_shape[-1]
    return build_pipeline(
        config,
        sizes.image_shape,
        sizes.classes,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        mesh=mesh,
    )


def versions() -> dict[str, str]:
    """Returns the versions of Python, JAX, this package and of installed compilers."""
    compilers = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
    installed = {}
    for name in compilers:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return {"python": platform.python_version(), **workdir.versions(), **installed}


class _Training(NamedTuple):
    """A training: its phase, its functions, and the shapes of its arrays."""

    phase: str
    init: Callable
    loss: Callable
    frozen: PyTree
    arrays: dict[str, Any]


class Subject:
    """An experiment on a mesh, with shapes for all of its arrays.

    Args:
      config, sizes, mesh: as of `programs_of`.
    """

    def __init__(self, config: Config, sizes: Sizes, mesh: Mesh) -> None:
        self.config, self.sizes, self.mesh = config, sizes, mesh
        self.pipeline = _pipeline_of(config, sizes, mesh)
        examples = self.pipeline.examples
        self.uncoded = uncoded_pipeline(config, examples.mean, examples.std, mesh)
        key = jax.random.key(0)
        self.frozen = jax.eval_shape(self._init_base, key)
        self.params = jax.eval_shape(self.pipeline.init, key)

    def _init_base(self, key: jax.Array) -> PyTree:
        return self.uncoded.base.init(key, self.sizes.image_shape, self.sizes.classes)

    def _program(
        self, name: str, images: int, lower: Callable[[], jax.stages.Lowered]
    ) -> Program:
        return Program(name, images, self.mesh, self.config.precision, lower)

    def _placed(
        self, tree: PyTree, one: bool = False, axis: int | None = None
    ) -> PyTree:
        """Returns shapes that say where arrays are: whole on all devices, or on one; or
        on each its part of the batch, which is their `axis`."""
        place: Sharding = NamedSharding(self.mesh, batch_spec(axis))
        if one:
            place = OnOneDevice(self.mesh.devices.flat[0])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
        )

    def _images(self, batch: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *self.sizes.image_shape), jnp.uint8)

    def _arrived(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.pipeline.n, 1), jnp.bool_)

    def inference(self, batch: int) -> Program:
        """Returns the coded inference of a batch, for any erasure pattern."""
        arrays = self._placed(
            (self.frozen, self.params, self._images(batch), self._arrived())
        )
        run = jax.jit(infer_images, static_argnums=0)
        lower = functools.partial(run.lower, self.pipeline, *arrays)
        return self._program(f"coded inference of {batch}", batch, lower)

    def uncoded_inference(self, batch: int) -> Program:
        """Returns the inference of the base model alone, on the same devices."""
        arrays = self._placed((self.frozen, (), self._images(batch), self._arrived()))
        run = jax.jit(infer, static_argnums=0)
        lower = functools.partial(run.lower, self.uncoded, *arrays)
        return self._program(f"uncoded inference of {batch}", batch, lower)

    def base_step(self) -> Program:
        """Returns a training step of the base model."""
        config = self.config
        loss = tasks.base_loss(
            self.uncoded, config.augmentation, config.label_smoothing
        )
        training = _Training(BASE, self._init_base, loss, {}, self._examples())
        return self._step("training step, base", training)

    def training(self) -> Iterator[Program]:
        """Yields the steps of the base model, and of the code if it learns."""
        yield self.base_step()
        if jax.tree.leaves(self.params):
            memory = _memory(self.mesh)
            yield self.code_step("training step, code", memory)
            steps = f"training, code, loop of {CALL_STEPS} steps"
            yield self.code_step(steps, memory, count=CALL_STEPS)
            if MAPS_SEEDS:
                seeds = max(self.config.seeds, 2)
                name = f"training step, code, {seeds} seeds"
                yield self.code_step(name, memory, seeds=seeds)

    def code_step(
        self, name: str, memory: int, count: int = 1, seeds: int = 0
    ) -> Program:
        """Returns a training step of the code.

        Args:
          name: of the program.
          memory: bytes of a device.
          count: steps in a loop.
          seeds: trained at once; 0 for one alone.
        """
        pipeline, arrays = self.pipeline, self._examples(grouped=True)
        total = len(arrays["labels"])
        kept = self.config.code_augmentation == "none"
        if kept and exact_targets.keeps_targets(pipeline, total, memory):
            arrays["targets"] = exact_targets.target_shapes(pipeline, total)
        loss = tasks.code_loss(pipeline, self.config)
        training = _Training("code", pipeline.init, loss, self.frozen, arrays)
        return self._step(name, training, count, seeds)

    def _examples(self, grouped: bool = False) -> dict[str, Any]:
        """Returns shapes of the training images and labels, of groups if they are."""
        few = self.config.train_images if grouped else None
        total, group = few or self.sizes.examples, 1
        images = self._images(total)
        if grouped and self.pipeline.examples.grouped:
            group = self.pipeline.images_per_input
            total = -(-total // group)
            whole = self._images(total * group)
            join = functools.partial(inputs_of_images, self.pipeline)
            images = jax.eval_shape(join, whole)
        shape = (total, group) if group > 1 else (total,)
        labels = jax.ShapeDtypeStruct(shape, jnp.int32)
        return {"images": images, "labels": labels}

    def _step(
        self, name: str, training: _Training, count: int = 1, seeds: int = 0
    ) -> Program:
        """Returns a step of a training, or several in a loop; of `seeds` at once."""
        arrays, regime = training.arrays, regime_of(self.config, training.phase)
        total = len(arrays["labels"])
        optimizer = regime.optimizer(total)

        def begin(key: jax.Array) -> PyTree:
            state = initial_state(training.init, optimizer, key)[0]
            return state, jax.random.permutation(key, total).astype(jnp.int32), key

        keys = jax.random.key(0)
        if seeds:
            begin, keys = jax.vmap(begin), jax.random.split(keys, seeds)
        state, order, key = self._placed(jax.eval_shape(begin, keys))
        frozen, placed = self._placed((training.frozen, arrays))
        lower = functools.partial(
            train_steps.lower,
            state,
            frozen,
            placed,
            order,
            key,
            loss=training.loss,
            optimizer=optimizer,
            batch_size=regime.batch_size,
            count=count,
        )
        images = regime.batch_size
        if training.phase != BASE:
            images *= self.pipeline.images_per_input
        return self._program(name, images * max(seeds, 1), lower)

    def evaluation(self) -> Iterator[Program]:
        """Yields the programs that try one pattern on a chunk of a split: the results
        of all devices, and what is decoded of them."""
        pipeline = self.pipeline
        size = padded_size(self.mesh, CHUNK) * pipeline.images_per_input
        frozen, params = self._placed((self.frozen, self.params))
        join = functools.partial(inputs_of_images, pipeline)
        images = self._placed(jax.eval_shape(join, self._images(size)))
        run = lambda: predictions.run_devices.lower(pipeline, frozen, params, images)
        yield self._program(f"evaluation, results of {size}", size, run)
        run_devices = functools.partial(predictions.run_devices, pipeline)
        features, kept = jax.eval_shape(run_devices, self.frozen, self.params, images)
        results = Results(self._placed(features, axis=1), self._placed(kept, axis=0))
        run_uncoded = functools.partial(predictions.run_uncoded, pipeline)
        target, expected = jax.eval_shape(run_uncoded, self.frozen, images)
        known = predictions.Uncoded(
            images,
            labels=self._placed(expected),
            weight=self._placed(expected.update(dtype=jnp.float32)),
            target=self._placed(target, axis=0),
            expected=self._placed(expected, axis=0),
        )
        mask = (len(pipeline.stages), *self._arrived().shape)
        decode = functools.partial(
            predictions.decode_chunk.lower,
            pipeline,
            frozen,
            params,
            results=results,
            uncoded=known,
            available=self._placed(jax.ShapeDtypeStruct(mask, jnp.bool_)),
        )
        yield self._program(f"evaluation, one pattern on {size}", size, decode)

    def parts(self, batch: int) -> Iterator[Program]:
        """Yields the programs of a first-k inference, each of one device; see
        `service.parts`."""
        pipeline = self.pipeline._replace(mesh=None)
        place = functools.partial(self._placed, one=True)
        frozen, params = place((self.frozen, self.params))
        one = Mesh(self.mesh.devices[:1, :1], self.mesh.axis_names)

        def of_part(name: str, function: Any, *arguments: Any) -> Program:
            lower = functools.partial(function.lower, *arguments)
            title = f"local engine, {name} of {batch}"
            return Program(title, batch, one, pipeline.dtype, lower)

        inputs = (frozen, params, place(self._images(batch)))
        yield of_part("encoding", parts.encode_images, pipeline, *inputs)
        arrived = (len(pipeline.stages), pipeline.n, 1)
        available = jax.ShapeDtypeStruct(arrived, jnp.bool_)
        encode = functools.partial(parts.encode_images, pipeline)
        sent = jax.eval_shape(encode, *inputs)
        for number, (piece, *_) in enumerate(parts.pieces(pipeline)):
            query, corner = sent.queries[0], jax.ShapeDtypeStruct((2,), jnp.int32)
            blocks = parts.segment_of(pipeline, piece.blocks)
            own = (blocks, piece.share[:2], frozen, place(query), place(corner))
            yield of_part(f"a piece of stage {number + 1}", parts.share, *own)
            share = jax.ShapeDtypeStruct((len(query), *piece.share), pipeline.dtype)
            results = place(((share,) * pipeline.n, available, sent.kept))
            decoded = (frozen, params, *results)
            decode = functools.partial(parts.decode_stage, pipeline, number)
            sent = jax.eval_shape(decode, *decoded)
            title = f"decoding stage {number + 1}"
            yield of_part(title, parts.decode_stage, pipeline, number, *decoded)
