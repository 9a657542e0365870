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


@pytest.mark.parametrize("images", [IMAGE, IMAGE[None], np.stack([IMAGE] * 3)])
def test_npy(images):
    decoded = decode(npy(images), GREY, "uint8")
    np.testing.assert_array_equal(decoded, images.reshape(-1, *GREY))


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_in_any_order_and_dtype(order):
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


def palette():
    file = io.BytesIO()
    Image.fromarray(IMAGE[..., 0]).convert("P").save(file, "PNG")
    return file.getvalue()


def with_mode(mode, kind="PNG", **options):
    file = io.BytesIO()
    Image.new(mode, (28, 28)).save(file, kind, **options)
    return file.getvalue()


FLAT = IMAGE[..., 0]
OTHER = "body: another format given, an .npy, PNG or JPEG file accepted"
NPY = "body: damaged or of objects given, a whole .npy of numbers accepted"
WRONG = {
    "nothing": (b"", "body: 'no bytes' given, an .npy, PNG or JPEG file accepted"),
    "text": (b"junk", OTHER),
    "npz": (b"PK\x03\x04junk", OTHER),
    "gif": (picture(FLAT, "GIF"), OTHER),
    "pickle": (b"\x80\x04K\x01.", OTHER),
    "objects": (npy(np.array([{}])), NPY),
    "half": (npy(IMAGE)[:-1], NPY),
    "head": (b"\x93NUMPY\x01\x00\x10\x00{'shape': ((((((((", NPY),
    "huge": (npy(IMAGE).replace(b"(28, 28, 1)", b"(77777, 777777, 77)"), NPY),
    "negative": (npy(IMAGE).replace(b"(28, 28, 1)", b"(-28, 28,1)"), NPY),
    "size": (picture(np.zeros((32, 30), "u1")), "image: 32x30 given, 28x28 accepted"),
    "jpeg size": (
        picture(np.zeros((8, 9), "u1"), "JPEG"),
        "image: 8x9 given, 28x28 accepted",
    ),
    "rgb": (
        with_mode("RGB"),
        "image: RGB of 8 bits given, grey of 8 bits accepted",
    ),
    "rgba": (with_mode("RGBA"), "image: mode RGBA given, grey of 8 bits accepted"),
    "la": (with_mode("LA"), "image: mode LA given, grey of 8 bits accepted"),
    "bits": (with_mode("1"), "image: mode 1 given, grey of 8 bits accepted"),
    "palette": (palette(), "image: mode P given, grey of 8 bits accepted"),
    "cmyk": (with_mode("CMYK", "JPEG"), "image: mode CMYK given, grey of 8 bits acc"),
    "16 bits": (with_mode("I;16"), "image: 16 bits given, grey of 8 bits accepted"),
    "16 bits of RGB": (sixteen_bits(), "image: 16 bits given, grey of 8 bits accepted"),
    "transparent": (
        with_mode("L", transparency=0),
        "image: transparency given, grey of 8 bits accepted",
    ),
    "animated": (animated(), "image: several images given, grey of 8 bits accepted"),
    "bomb": (bomb(8_000), "image: 8000x8000 given, 28x28 accepted"),
    "larger bomb": (bomb(2**31 - 1), "image: a damaged PNG given, a whole one acc"),
    "half png": (picture(FLAT)[:60], "image: a damaged PNG given, a whole one acc"),
    "short png": (bomb(28)[:20], "image: a damaged PNG given, a whole one accepted"),
    "half jpeg": (
        picture(FLAT, "JPEG")[:-200],
        "image: a damaged JPEG given, a whole one accepted",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_a_line(name):
    body, line = WRONG[name]
    with pytest.raises(ValueError) as raised:
        decode(body, GREY, "uint8")
    assert str(raised.value).startswith(line) and "\n" not in str(raised.value)
    assert isinstance(raised.value, UnsupportedFormat) == (line == OTHER)


def test_no_pixel_of_a_bomb_is_made(monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="8000x8000 given"):
        decode(bomb(8_000), GREY, "uint8")


def test_a_picture_lies_as_the_network_takes_it():
    with pytest.raises(ValueError, match="image: 6x4 given, 4x6 accepted"):
        decode(picture(np.zeros((6, 4, 3), "u1")), COLOUR, "uint8")


def test_pictures_are_of_bytes():
    with pytest.raises(UnsupportedFormat, match="PNG given, an .npy of float32 file"):
        decode(picture(FLAT), GREY, "float32")


def test_pictures_have_one_or_three_channels():
    with pytest.raises(ValueError, match="grey of 8 bits given, no picture, but .npy"):
        decode(picture(FLAT), (28, 28, 2), "uint8")


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
