"""Augmented images are shifted, flipped or mapped ones of their own."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from coded_jax.data.augmentation import AUGMENTATIONS, SHIFT, affine_map

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
    made = np.asarray(AUGMENTATIONS[kind](jax.random.key(0), images))
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
    change = jax.jit(AUGMENTATIONS[kind])
    once, again, reseeded = (change(jax.random.key(i), images) for i in (0, 0, 1))
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
