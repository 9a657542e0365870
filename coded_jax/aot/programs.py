"""The programs of an experiment, compiled for devices that need not be at hand."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding

from coded_jax.aot.chips import chip_of
from coded_jax.aot.compiled import Figures, figures_of
from coded_jax.aot.topologies import compiler_options
from coded_jax.checks import first_line, require
from coded_jax.data.groups import infer_images
from coded_jax.devices.meshes import memory_of_device, padded_size
from coded_jax.devices.placement import batch_spec
from coded_jax.evaluation import predictions
from coded_jax.inference.pipeline import Examples, Results, exact_outputs, infer
from coded_jax.runs import workdir
from coded_jax.runs.build import build_pipeline, uncoded_pipeline
from coded_jax.runs.config import Config
from coded_jax.runs.phases import BASE, CODE, regime_of
from coded_jax.service import parts
from coded_jax.training import exact_targets, steps, tasks
from coded_jax.types import PyTree

KINDS = ("inference", "training", "evaluation", "local")
"""Kinds of programs: inference on the mesh, training steps, evaluation, and those of
the local engine, each of one device."""

COMPILERS = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")


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


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The outcome of compiling a program, which `dataclasses.asdict` turns into JSON.

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
    mesh: tuple[int, ...]
    seconds: float
    figures: Figures | None = None
    refusal: str | None = None

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Compiled:
        """Returns the record of its JSON."""
        figures = fields["figures"] and Figures.from_json(fields["figures"])
        return cls(**{**fields, "figures": figures, "mesh": tuple(fields["mesh"])})


def compile_program(program: Program) -> Compiled:
    """Compiles a program, and reads its figures."""
    compiled = refusal = None
    begun = time.perf_counter()
    try:
        lowered, begun = program.lower(), time.perf_counter()
        compiled = lowered.compile(compiler_options(program.mesh.devices.flat[0]))
    except Exception as error:  # of any kind: each compiler has its own
        refusal = first_line(error)
    return Compiled(
        program.name,
        program.images,
        program.dtype,
        mesh=program.mesh.devices.shape,
        seconds=time.perf_counter() - begun,
        figures=figures_of(compiled) if compiled else None,
        refusal=refusal,
    )


def versions() -> dict[str, str]:
    """Returns the versions of Python, JAX, this package and of installed compilers."""
    every = {x.name: x.version for x in metadata.distributions()}
    compilers = {name: every[name] for name in COMPILERS if name in every}
    return {**workdir.versions(), **compilers}


class Subject:
    """An experiment on a mesh, with shapes for all of its arrays.

    Args:
      config: the experiment.
      sizes: of its data set.
      mesh: from `make_mesh`, of described devices say; for inference any, also such
        that no run may use.

    Raises:
      ValueError: see `build_pipeline`.
    """

    def __init__(self, config: Config, sizes: Sizes, mesh: Mesh) -> None:
        self.config, self.sizes, self.mesh = config, sizes, mesh
        shape, classes, _ = sizes
        # What pixels are normalised by changes no program.
        mean, std = (0.5,) * shape[-1], (0.25,) * shape[-1]
        self.pipeline = build_pipeline(
            config, Examples(shape, mean, std), classes, mesh
        )
        examples = self.pipeline.examples
        self.uncoded = uncoded_pipeline(config, examples, mesh)
        init = lambda key: (self._init_base(key), self.pipeline.init(key))
        self.frozen, self.params = self._placed(jax.eval_shape(init, jax.random.key(0)))

    @property
    def exchanged(self) -> list[list[int]]:
        """Bytes of a query and of a share of one image, for each coded stage."""
        itemsize = jnp.dtype(self.pipeline.dtype).itemsize
        return [
            [
                itemsize * math.prod(x)
                for x in (stage.plan.piece_shape, stage.result_shape)
            ]
            for stage in self.pipeline.stages
        ]

    def programs(
        self, batches: Sequence[int], kinds: Collection[str] = KINDS
    ) -> Iterator[Program]:
        """Yields the programs of the experiment.

        They are coded and uncoded inference; the training steps of base model and code,
        one and `CALL_STEPS` in a loop, and of several seeds at once; the two of the
        evaluation; and what the local engine runs on one device each: encoding, a piece
        of each stage, decoding.

        Args:
          batches: images of an inference.
          kinds: which of `KINDS`.

        Raises:
          ValueError: a kind is not one of `KINDS`.
        """
        known = bool(kinds) and set(kinds) <= set(KINDS)
        require("kinds", ",".join(kinds), known, f"some of {', '.join(KINDS)}")
        if "inference" in kinds:
            for batch in batches:
                yield self.inference(batch)
                yield self.uncoded_inference(batch)
        if "training" in kinds:
            yield self.step(BASE)
            if jax.tree.leaves(self.params):  # else the code learns nothing
                yield self.step(CODE)
                yield self.step(CODE, count=steps.CALL_STEPS)
                if steps.MAPS_SEEDS:
                    yield self.step(CODE, seeds=max(self.config.seeds, 2))
        if "evaluation" in kinds:
            yield from self.evaluation()
        if "local" in kinds:
            for batch in batches:
                yield from self.parts(batch)

    def inference(self, batch: int) -> Program:
        """Returns the coded inference of a batch, for any erasure pattern."""
        run = jax.jit(infer_images, static_argnums=0)
        images = self._placed(self._images(batch))
        available = self._placed(jax.ShapeDtypeStruct((self.pipeline.n, 1), jnp.bool_))
        lower = lambda: run.lower(
            self.pipeline, self.frozen, self.params, images, available
        )
        return self._program(f"coded inference of {batch}", batch, lower)

    def uncoded_inference(self, batch: int) -> Program:
        """Returns the inference of the base model alone, on the same devices."""
        run = jax.jit(infer, static_argnums=0)
        images = self._placed(self._images(batch))
        available = self._placed(jax.ShapeDtypeStruct((self.pipeline.n, 1), jnp.bool_))
        lower = lambda: run.lower(self.uncoded, self.frozen, (), images, available)
        return self._program(f"uncoded inference of {batch}", batch, lower)

    def step(self, phase: str, count: int = 1, seeds: int = 0) -> Program:
        """Returns a training step.

        Args:
          phase: whether of the base model or of the code, see `phases`.
          count: steps in a loop.
          seeds: trained at once; 0 for one alone.
        """
        config, pipeline, total = self.config, self.pipeline, self.sizes.examples
        if phase == BASE:
            init, frozen, group = self._init_base, {}, 1
            smoothing = config.label_smoothing
            loss = tasks.base_loss(self.uncoded, config.augmentation, smoothing)
        else:
            init, frozen, group = pipeline.init, self.frozen, pipeline.images_per_input
            loss = tasks.code_loss(pipeline, config)
            total = -(-(config.train_images or total) // group)
        labels = (total, group) if group > 1 else (total,)
        arrays: dict[str, Any] = {
            "images": self._images(total, group),
            "labels": jax.ShapeDtypeStruct(labels, jnp.int32),
        }
        chip = chip_of(self.mesh.devices.flat[0].device_kind)
        memory = int(chip.memory) if chip else memory_of_device(self.mesh)
        kept = phase != BASE and config.code_augmentation == "none"
        if kept and exact_targets.keeps_targets(pipeline, total, memory):
            outputs = functools.partial(exact_outputs, pipeline)
            arrays["targets"] = jax.eval_shape(outputs, frozen, arrays["images"])
        regime = regime_of(config, phase)
        optimizer = regime.optimizer(total)

        def begin(key: jax.Array) -> PyTree:
            state = steps.initial_state(init, optimizer, key)[0]
            return state, jax.random.permutation(key, total).astype(jnp.int32), key

        name, keys = f"training step, {phase}", jax.random.key(0)
        if count > 1:
            name = f"training, {phase}, loop of {count} steps"
        if seeds:
            name += f", {seeds} seeds"
            begin, keys = jax.vmap(begin), jax.random.split(keys, seeds)
        state, order, key = self._placed(jax.eval_shape(begin, keys))
        lower = functools.partial(
            steps.train_steps.lower,
            state,
            frozen,
            self._placed(arrays),
            order=order,
            key=key,
            loss=loss,
            optimizer=optimizer,
            batch_size=regime.batch_size,
            count=count,
        )
        return self._program(name, regime.batch_size * group * max(seeds, 1), lower)

    def evaluation(self) -> Iterator[Program]:
        """Yields the programs that try one pattern on a chunk of a split: the results
        of all devices, and what is decoded of them."""
        pipeline, variables = self.pipeline, (self.frozen, self.params)
        inputs = padded_size(self.mesh, predictions.CHUNK)
        size = inputs * pipeline.images_per_input
        images = self._placed(self._images(inputs, pipeline.images_per_input))
        run = predictions.run_devices
        lower = lambda: run.lower(pipeline, *variables, images)
        yield self._program(f"evaluation, results of {size}", size, lower)
        features, kept = run.eval_shape(pipeline, *variables, images)
        run_uncoded = functools.partial(predictions.run_uncoded, pipeline)
        target, expected = jax.eval_shape(run_uncoded, self.frozen, images)
        mask = jax.ShapeDtypeStruct((len(pipeline.stages), pipeline.n, 1), jnp.bool_)
        decode = functools.partial(
            predictions.decode_chunk.lower,
            pipeline,
            *variables,
            results=Results(self._placed(features, axis=1), self._placed(kept, axis=0)),
            uncoded=predictions.Uncoded(
                images,
                labels=self._placed(expected),
                weight=self._placed(expected.update(dtype=jnp.float32)),
                target=self._placed(target, axis=0),
                expected=self._placed(expected, axis=0),
            ),
            available=self._placed(mask),
        )
        yield self._program(f"evaluation, one pattern on {size}", size, decode)

    def parts(self, batch: int) -> Iterator[Program]:
        """Yields the programs of a first-k inference, each of one device; see
        `service.parts`."""
        pipeline = self.pipeline._replace(mesh=None)
        one = Mesh(self.mesh.devices[:1, :1], self.mesh.axis_names)
        place = functools.partial(self._placed, one=True)

        def of_part(part: str, function: Any, *arguments: Any, **more: Any) -> Program:
            lower = functools.partial(function.lower, *arguments, **more)
            name = f"local engine, {part} of {batch}"
            return self._program(name, batch, lower)._replace(mesh=one)

        frozen, params, images = place((self.frozen, self.params, self._images(batch)))
        own = {"frozen": frozen, "params": params}
        yield of_part("encoding", parts.encode_images, pipeline, **own, images=images)
        sent = parts.encode_images.eval_shape(pipeline, **own, images=images)
        mask = jax.ShapeDtypeStruct((len(pipeline.stages), pipeline.n, 1), jnp.bool_)
        for number, (piece, *_) in enumerate(parts.pieces(pipeline)):
            yield of_part(
                f"a piece of stage {number + 1}",
                parts.share,
                parts.segment_of(pipeline, piece.blocks),
                piece.share[:2],
                variables=frozen,
                query=place(sent.queries[0]),
                offset=place(jax.ShapeDtypeStruct((2,), jnp.int32)),
            )
            shape = (len(sent.queries[0]), *piece.share)
            share = jax.ShapeDtypeStruct(shape, pipeline.dtype)
            results = {"shares": (share,) * pipeline.n, "available": mask}
            results = {**own, **place({**results, "kept": sent.kept})}
            name, decode = f"decoding stage {number + 1}", parts.decode_stage
            yield of_part(name, decode, pipeline, number, **results)
            sent = decode.eval_shape(pipeline, number, **results)

    def _init_base(self, key: jax.Array) -> PyTree:
        return self.uncoded.base.init(key, self.sizes.image_shape, self.sizes.classes)

    def _images(self, inputs: int, group: int = 1) -> jax.ShapeDtypeStruct:
        height, *rest = self.sizes.image_shape
        return jax.ShapeDtypeStruct((inputs, group * height, *rest), jnp.uint8)

    def _placed(
        self, tree: PyTree, one: bool = False, axis: int | None = None
    ) -> PyTree:
        """Returns shapes that say where arrays are: whole on all devices, or on one; or
        on each its part of the batch, which is their `axis`."""
        place: Sharding = NamedSharding(self.mesh, batch_spec(axis))
        if one:
            place = SingleDeviceSharding(self.mesh.devices.flat[0])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
        )

    def _program(
        self, name: str, images: int, lower: Callable[[], jax.stages.Lowered]
    ) -> Program:
        return Program(name, images, self.mesh, self.config.precision, lower)
