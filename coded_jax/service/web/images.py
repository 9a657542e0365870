"""Images of a request: the bytes of an `.npy`, PNG or JPEG file as an array."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps
from starlette.exceptions import HTTPException
from starlette.requests import Request

from coded_jax.runs.coded_model import CodedModel

NPY = b"\x93NUMPY"
MAGIC = {NPY: ".npy", b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
"""First bytes of files, by format. The header `Content-Type` is not relied on."""
FORMS = {1: "grey of 8 bits", 3: "RGB of 8 bits"}
"""Pictures whose pixels are those of a network, by its channels."""


class UnsupportedFormat(ValueError):
    """The bytes are in no format that the network's images can come in."""


@contextlib.contextmanager
def refusals(line: str = "") -> Iterator[None]:
    """Answers 400 or 415, with an own line or the error's, where what a client has sent
    is a ValueError; others are defects."""
    try:
        yield
    except ValueError as error:
        status = 415 if isinstance(error, UnsupportedFormat) else 400
        raise HTTPException(status, line or str(error)) from None


async def read_body(request: Request) -> bytes:
    """Returns the body of a request, of which no more is read than may be."""
    most, body = request.app.state.max_body, bytearray()
    length = int(request.headers.get("content-length", 0))  # h11 has checked it
    if length <= most:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                break
    if max(length, len(body)) > most:
        problem = f"body: more than {most} bytes given, {most} accepted"
        raise HTTPException(413, problem)
    return bytes(body)


def decode(body: bytes, model: CodedModel) -> np.ndarray:
    """Decodes the images of a request. Nothing is unpickled.

    Args:
      body: an `.npy` file of `[B, H, W, C]` or of one image `[H, W, C]`, in any dtype;
        or a PNG or JPEG file of one image of just this size, for uint8.
      model: that takes them.

    Returns:
      `[B, H, W, C]`. What an `.npy` file has is not checked further.

    Raises:
      UnsupportedFormat: the bytes are of another format.
      ValueError: they are damaged, or an image of another size or with other channels.
    """
    kind = next((k for magic, k in MAGIC.items() if body.startswith(magic)), None)
    shape, dtype = model.image_shape, model.pipeline.image_dtype
    pictures = dtype == "uint8"
    if kind is None or (kind != ".npy" and not pictures):
        given = kind or "another format"
        accepted = "an .npy, PNG or JPEG" if pictures else f"an .npy of {dtype}"
        raise UnsupportedFormat(f"body: {given} given, {accepted} file accepted")
    if kind != ".npy":
        return _decode_picture(body, kind, shape)[None]
    with _whole("body: damaged or of objects given, a whole .npy of numbers"):
        images = np.lib.format.read_array(io.BytesIO(body), allow_pickle=False)
    return images[None] if images.ndim == len(shape) else images


def _decode_picture(body: bytes, kind: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns the pixels uint8 `[H, W, C]`, each value as the file has it."""
    rows, columns, channels = shape
    damaged = f"image: a damaged {kind} given, a whole one"
    with _whole(damaged):
        picture = Image.open(io.BytesIO(body), formats=[kind])
    # Of a file that unpacks to more, the head alone is read: size and form are compared
    # before any pixel is made. It may be turned, which Pillow tells afterwards.
    if picture.size != (rows, columns):
        _require_same(f"{picture.height}x{picture.width}", f"{rows}x{columns}")
    refused = {
        "several images": getattr(picture, "is_animated", False),
        "16 bits": kind == "PNG" and body[24] == 16,  # which Pillow cuts off at 8
        "transparency": "transparency" in picture.info,
    }
    known = {"L": FORMS[1], "RGB": FORMS[3]}.get(picture.mode, f"mode {picture.mode}")
    form = next((form for form, holds in refused.items() if holds), known)
    _require_same(form, FORMS.get(channels, "no picture, but .npy"))
    with _whole(damaged):  # as it is shown, and as the images of a folder are read
        pixels = np.asarray(ImageOps.exif_transpose(picture))
    _require_same(f"{pixels.shape[0]}x{pixels.shape[1]}", f"{rows}x{columns}")
    return pixels.reshape(shape)


def _require_same(given: str, accepted: str) -> None:
    if given != accepted:
        raise ValueError(f"image: {given} given, {accepted} accepted")


@contextlib.contextmanager
def _whole(line: str) -> Iterator[None]:
    """Makes one error of those of many types that NumPy and Pillow have."""
    try:
        yield
    except Exception:
        raise ValueError(f"{line} accepted") from None
