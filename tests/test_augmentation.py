"""Augmented images are shifted, or flipped and shifted, ones of their own."""

import jax
import numpy as np
import pytest

from coded_jax.augmentation import AUGMENTATIONS, augment

SHAPE = (6, 7, 3)


def versions(image, kind):
    """All that may become of an image, as bytes."""
    height, width, _ = image.shape
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    flipped = [padded, padded[:, ::-1]] if kind == "flip_shift" else [padded]
    return {
        whole[i : i + height, j : j + width].tobytes()
        for whole in flipped
        for i in range(5)
        for j in range(5)
    }


@pytest.mark.parametrize("kind, count", [("shift", 25), ("flip_shift", 50)])
def test_every_version_occurs_and_no_other(kind, count):
    two = np.random.default_rng(0).integers(1, 256, (2, *SHAPE), np.uint8)
    images = two[np.arange(1600) % 2]
    made = np.asarray(augment(jax.random.key(0), images, kind))
    assert (made.shape, made.dtype) == (images.shape, np.uint8)
    for i, image in enumerate(two):
        found, times = np.unique(
            made[i::2].reshape(800, -1), axis=0, return_counts=True
        )
        expected = versions(image, kind)
        assert len(expected) == count
        assert {row.tobytes() for row in found} == expected
        # 800 draws of equal chances: 32 or 16 of each.
        assert np.square(times - 800 / count).sum() / (800 / count) < 2 * count


def test_none_is_the_identity():
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    same = augment(jax.random.key(0), images, "none")
    np.testing.assert_array_equal(same, images)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_key_alone_decides(kind):
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
    change = jax.jit(augment, static_argnums=2)
    once, again, other = (change(jax.random.key(i), images, kind) for i in (0, 0, 1))
    np.testing.assert_array_equal(once, again)
    assert np.array_equal(once, other) == (kind == "none")
