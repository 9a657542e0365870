"""A trained coded inference as one file that runs without this package.

    model = coded_jax.load("runs/quickstart")
    export.save(model, "coded.bin")

The file holds StableHLO with the parameters in it, as `jax.export` writes it: for any
batch size, and for CPUs, CUDA and TPUs at once. Whoever runs it needs JAX and
flatbuffers:

    with open("coded.bin", "rb") as file:
        coded = jax.export.deserialize(bytearray(file.read()))
    logits = coded.call(images, available)

JAX reads what the same version wrote, or one up to six months older; see
https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees.
"""

from __future__ import annotations

import contextlib
import os
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.export  # not an attribute of `jax` until it is imported
import jax.numpy as jnp

from coded_jax.data.groups import infer_images
from coded_jax.runs.coded_model import CodedModel
from coded_jax.runs.workdir import write_atomically

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where the function can run; none of them need be here."""
NO_LOCATIONS = {
    "jax_include_full_tracebacks_in_locations": True,  # else the limit has no say
    "jax_traceback_in_locations_limit": 0,
}


def serialize(model: CodedModel) -> bytes:
    """Exports the coded inference with its parameters, for `jax.export.deserialize`.

    The function in it takes `images`, `[b, H, W, C]` of the pipeline's `image_dtype`
    with any `b` of 1 or more, and `available`, bool `[n, 1]` and True where the result
    arrived, as `erasures.available` makes it. It returns the logits, float32
    `[b, classes]`, or `[b, H', W', classes]` where answers are images. It checks shapes
    and dtypes, but not that at most `r` results are lost: with more lost it answers,
    too, and wrongly. Its matrix products have the precision that
    `jax_default_matmul_precision` has now. The same model gives the same bytes, without
    a path of this machine.

    Args:
      model: a finished run, or a model in memory.

    Raises:
      ValueError: functions of the user's ask for the batch size as a number.
      ModuleNotFoundError: flatbuffers is missing; the `export` extra brings it.
    """
    if find_spec("flatbuffers") is None:
        raise ModuleNotFoundError(
            "export needs flatbuffers: pip install 'coded_jax[export]'"
        )
    # The file must not ask for the devices that the model is spread over now.
    model = model.settled()
    pipeline = model.pipeline._replace(mesh=None)
    frozen, params = jax.device_get((model.frozen, model.params))

    def coded_inference(images: jax.Array, available: jax.Array) -> jax.Array:
        return infer_images(pipeline, frozen, params, images, available)

    (b,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct(
        (pipeline.images_per_input * b, *model.image_shape), pipeline.image_dtype
    )
    available = jax.ShapeDtypeStruct((pipeline.n, 1), jnp.bool_)
    export = jax.export.export(jax.jit(coded_inference), platforms=PLATFORMS)
    with contextlib.ExitStack() as restored:
        # No files and lines of the functions in what JAX lowers.
        for name, value in NO_LOCATIONS.items():
            restored.callback(jax.config.update, name, getattr(jax.config, name))
            jax.config.update(name, value)
        try:
            exported = export(images, available)
        except TypeError as error:
            if "_DimExpr" not in str(error):
                raise
            raise ValueError(
                "model: functions that ask for the batch size as a number, len(x), "
                "given, x.shape[0] accepted"
            ) from error
    return bytes(exported.serialize())


def save(model: CodedModel, output: str | os.PathLike) -> Path:
    """Writes `serialize(model)` to a file.

    At any moment `output` holds either what was there before or the whole file.

    Args:
      model: as for `serialize`.
      output: the file, in a folder that exists; one that is there is replaced.

    Returns:
      The absolute path.

    Raises:
      ValueError: it cannot be written to.
      ModuleNotFoundError: as for `serialize`.
    """
    file = Path(output).expanduser().absolute()
    blob = serialize(model)
    try:
        write_atomically(file, blob)
    except OSError as error:
        with contextlib.suppress(OSError):
            file.with_name(f"{file.name}.tmp").unlink()
        raise ValueError(
            f"output: {str(output)!r} given, a file that can be written to accepted "
            f"({error.strerror or error})"
        ) from error
    return file
