"""Images of requests: exact pixels, or one line about what is wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from coded_jax.web.images import UnsupportedFormat, decode
from tests.web.fakes import IMAGE, npy, picture

GREY, COLOUR = (28, 28, 1), (4, 6, 3)
RGB = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_in_any_order_and_dtype(order):
    for images in (IMAGE, IMAGE[None], np.stack([IMAGE] * 3)):
        decoded = decode(npy(np.asarray(images, order=order)), GREY, "uint8")
        np.testing.assert_array_equal(decoded, images.reshape(-1, *GREY))
    images = np.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), order=order)
    np.testing.assert_array_equal(decode(npy(images), COLOUR, "float32"), images)


def test_png_is_exact():
    np.testing.assert_array_equal(
        decode(picture(IMAGE[..., 0]), GREY, "uint8"), IMAGE[None]
    )
    np.testing.assert_array_equal(decode(picture(RGB), COLOUR, "uint8"), RGB[None])


def test_jpeg_is_what_pillow_decodes():
    for pixels, shape in ((IMAGE[..., 0], GREY), (RGB, COLOUR)):
        file = picture(pixels, "JPEG")
        expected = np.asarray(Image.open(io.BytesIO(file))).reshape(1, *shape)
        np.testing.assert_array_equal(decode(file, shape, "uint8"), expected)


def test_a_turned_picture_is_taken_as_it_is_shown():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    file = picture(np.rot90(RGB).copy(), exif=exif)
    np.testing.assert_array_equal(decode(file, COLOUR, "uint8"), RGB[None])


def png(side, bits, colours, pixels):
    """A PNG file, whatever its pixels are."""
    head = struct.pack(">IIBBBBB", side, side, bits, colours, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        check = struct.pack(">I", zlib.crc32(kind + data))
        file += struct.pack(">I", len(data)) + kind + data + check
    return file


def bomb(side):
    """A few bytes that claim to be many pixels."""
    return png(side, 8, 0, bytes(1000))


def sixteen_bits():
    return png(28, 16, 2, bytes(28 * (1 + 28 * 6)))


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
    "nothing": (b"", "body: "),
    "npz": (b"PK\x03\x04junk", "body: "),
    "gif": (picture(FLAT, "GIF"), "body: "),
    "objects": (npy(np.array([{}])), "body: "),
    "half": (npy(IMAGE)[:-1], "body: "),
    "head": (b"\x93NUMPY\x01\x00\x10\x00{'shape': ((((((((", "body: "),
    "huge": (npy(IMAGE).replace(b"(28, 28, 1)", b"(77777, 777777, 77)"), "body: "),
    "size": (picture(np.zeros((32, 30), "u1")), "image: 32x30 given"),
    "rgb": (with_mode("RGB"), "image: RGB of 8 bits given"),
    "alpha": (with_mode("LA"), "image: mode LA given"),
    "bits": (with_mode("1"), "image: mode 1 given"),
    "16 bits": (with_mode("I;16"), "image: 16 bits given"),
    "16 bits of RGB": (sixteen_bits(), "image: 16 bits given"),
    "transparent": (with_mode("L", transparency=0), "image: transparency given"),
    "animated": (animated(), "image: several images given"),
    "bomb": (bomb(8_000), "image: 8000x8000 given"),
    "larger bomb": (bomb(2**31 - 1), "image: a damaged PNG given"),
    "half png": (picture(FLAT)[:60], "image: a damaged PNG given"),
    "half jpeg": (picture(FLAT, "JPEG")[:-200], "image: a damaged JPEG given"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line(name):
    body, line = WRONG[name]
    with pytest.raises(ValueError) as raised:
        decode(body, GREY, "uint8")
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)
    assert isinstance(raised.value, UnsupportedFormat) == (name in ("npz", "gif"))


def test_what_the_network_takes_decides():
    turned = picture(np.zeros((6, 4, 3), "u1"))
    with pytest.raises(ValueError, match="image: 6x4 given, 4x6 accepted"):
        decode(turned, COLOUR, "uint8")
    with pytest.raises(UnsupportedFormat):  # pictures are of bytes
        decode(picture(FLAT), GREY, "float32")
    with pytest.raises(ValueError):  # and have one or three channels
        decode(picture(FLAT), (28, 28, 2), "uint8")


def test_no_pixel_of_a_bomb_is_made(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="8000x8000 given"):
        decode(bomb(8_000), GREY, "uint8")


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
