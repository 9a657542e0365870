"""Images of requests: exact pixels, or one line about what is wrong."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFile

from coded_jax.service.web import images
from coded_jax.service.web.images import UnsupportedFormat
from tests.service.web.fakes import IMAGE, npy, picture


def decode(body, shape, dtype):
    pipeline = SimpleNamespace(image_dtype=dtype)
    model = SimpleNamespace(image_shape=shape, pipeline=pipeline)
    return images.decode(body, model)


GREY, COLOUR = (28, 28, 1), (4, 6, 3)
RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_in_any_order(order):
    for own in (IMAGE, np.stack([IMAGE] * 3)):
        decoded = decode(npy(np.asarray(own, order=order)), GREY, "uint8")
        np.testing.assert_array_equal(decoded, own.reshape(-1, *GREY))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("pixels, shape", [(IMAGE[..., 0], GREY), (RGB, COLOUR)])
def test_pictures_are_what_pillow_decodes(kind, pixels, shape):
    file = picture(pixels, kind)
    expected = np.asarray(Image.open(io.BytesIO(file))).reshape(1, *shape)
    np.testing.assert_array_equal(decode(file, shape, "uint8"), expected)


def test_a_turned_picture_is_taken_as_it_is_shown():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    file = picture(np.rot90(RGB).copy(), exif=exif)
    np.testing.assert_array_equal(decode(file, COLOUR, "uint8"), RGB[None])


def animated():
    frames = [Image.fromarray(IMAGE[..., 0]), Image.fromarray(255 - IMAGE[..., 0])]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    return file.getvalue()


def with_mode(mode, kind="PNG", **options):
    file = io.BytesIO()
    Image.new(mode, (28, 28)).save(file, kind, **options)
    return file.getvalue()


FLAT = IMAGE[..., 0]
WRONG = {
    "npz": (b"PK\x03\x04junk", "body: "),
    "objects": (npy(np.array([{}])), "body: "),
    "half": (npy(IMAGE)[:-1], "body: "),
    "huge": (npy(IMAGE).replace(b"(28, 28, 1)", b"(77777, 777777, 77)"), "body: "),
    "size": (picture(np.zeros((32, 30), "u1")), "image: 32x30 given"),
    "rgb": (with_mode("RGB"), "image: RGB of 8 bits given"),
    "16 bits": (with_mode("I;16"), "image: 16 bits given"),
    "transparent": (with_mode("L", transparency=0), "image: transparency given"),
    "animated": (animated(), "image: several images given"),
    "half png": (picture(FLAT)[:60], "image: a damaged PNG given"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(name):
    body, line = WRONG[name]
    with pytest.raises(ValueError) as raised:
        decode(body, GREY, "uint8")
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)
    assert isinstance(raised.value, UnsupportedFormat) == (name == "npz")


def test_no_pixel_of_a_bomb_is_made(monkeypatch):
    bomb = picture(np.zeros((8_000, 8_000), np.uint8))  # few bytes
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="8000x8000 given"):
        decode(bomb, GREY, "uint8")


def test_damaged_bytes_are_one_error():
    """Of whatever type NumPy's and Pillow's own are."""
    random = np.random.default_rng(0)
    for file in (npy(IMAGE), picture(FLAT), picture(FLAT, "JPEG")):
        for _ in range(200):
            body = bytearray(file)
            for place in random.integers(0, min(len(body), 200), 3):
                body[place] = random.integers(256)
            try:
                decode(bytes(body), GREY, "uint8")
            except ValueError as error:
                assert "\n" not in str(error)
