"""Augmented images are shifted, flipped or mapped ones of their own."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from coded_jax.data.augmentation import (
    AFFINE,
    AUGMENTATIONS,
    SHIFT,
    affine_map,
    augment,
)

SHAPE = (6, 7, 3)


def versions(image, kind):
    """All that may become of an image, as bytes."""
    height, width, _ = image.shape
    most = 1 if kind == "flip_crop" else SHIFT
    padded = np.pad(image, ((most, most), (most, most), (0, 0)))
    flipped = [padded, padded[:, ::-1]] if "flip" in kind else [padded]
    return {
        whole[i : i + height, j : j + width].tobytes()
        for whole in flipped
        for i in range(2 * most + 1)
        for j in range(2 * most + 1)
    }


@pytest.mark.parametrize(
    "kind, count", [("shift", 25), ("flip_shift", 50), ("flip_crop", 18)]
)
def test_every_version_occurs_and_no_other(kind, count):
    two = np.random.default_rng(0).integers(1, 256, (2, *SHAPE), np.uint8)
    images = two[np.arange(1600) % 2]
    made = np.asarray(augment(jax.random.key(0), images, kind))
    assert (made.shape, made.dtype) == (images.shape, np.uint8)
    for i, image in enumerate(two):
        distinct, times = np.unique(
            made[i::2].reshape(800, -1), axis=0, return_counts=True
        )
        expected = versions(image, kind)
        assert len(expected) == count
        assert {row.tobytes() for row in distinct} == expected
        # 800 draws of equal chances.
        assert np.square(times - 800 / count).sum() / (800 / count) < 2 * count


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_key_alone_decides(kind):
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
    change = jax.jit(augment, static_argnums=2)
    once, again, reseeded = (change(jax.random.key(i), images, kind) for i in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert np.array_equal(once, reseeded) == (kind == "none")
    assert np.array_equal(once, images) == (kind == "none")


@pytest.mark.parametrize(
    "matrix", [np.eye(2), [[0, 1], [-1, 0]], [[1.1, -0.1], [0.15, 0.9]]]
)
def test_affine_maps_are_those_of_scipy(matrix):
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE[:2], 3), np.uint8)
    matrix, centre = np.asarray(matrix), (np.array(SHAPE[:2]) - 1) / 2
    mapped = affine_map(image, np.float32(matrix))
    offset = centre - matrix @ centre
    for channel in range(3):
        plane = image[..., channel].astype(float)
        expected = ndimage.affine_transform(
            plane, matrix, offset, order=1, mode="grid-constant"
        )
        # Both round, and may differ where a half is rounded.
        assert np.abs(mapped[..., channel] - expected).max() < 0.51


def test_affine_changes_each_image_by_its_own_map_and_within_bounds():
    """The centre of mass of a blot near an edge moves, but only so far."""
    height, width = 41, 41
    image = np.zeros((height, width, 1), np.uint8)
    image[9:12, 19:22] = 255  # 10 pixels above the centre
    made = np.asarray(augment(jax.random.key(0), np.stack([image] * 200), "affine"))
    mass = made.astype(float)
    rows, columns = (
        (mass * np.arange(41).reshape(shape)).sum((1, 2, 3)) / mass.sum((1, 2, 3))
        for shape in ((41, 1, 1), (1, 41, 1))
    )
    most = SHIFT + 10 * AFFINE / (1 - 2 * AFFINE)
    for shifts in (rows - 10, columns - 20):
        assert len(np.unique(shifts.round(6))) == 200
        assert most > np.abs(shifts).max() > SHIFT + 5 * AFFINE


def test_float_images_keep_their_fractions():
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    np.testing.assert_allclose(affine_map(image, np.eye(2)), image, rtol=1e-6)
