"""Views: parts of images, made smaller, that need not suffice for any feature."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import splitting
from coded_jax.splitting import views
from coded_jax.types import View
from tests.own_cnn import f_conv, make_variables

SHAPE = (12, 12, 1)
IMAGES = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype("f")


def plan_of(data, parity, size, shape=SHAPE):
    data, parity = (
        [views.view_of(x, shape, size) for x in own] for own in (data, parity)
    )
    return views.plan_views(f_conv, make_variables(), shape, data, parity, size)


def test_crops_are_parts_of_the_image():
    data = ("0-8x0-8", "0-8x4-12", "4-12x0-8", "4-12x4-12m")
    plan = plan_of(data, ("centre",), (8, 8))
    taken = splitting.split(plan, jnp.asarray(IMAGES))
    assert taken.shape == (5, 3, *plan.piece_shape)
    np.testing.assert_array_equal(taken[1], IMAGES[:, :8, 4:])
    np.testing.assert_array_equal(taken[3], IMAGES[:, 4:, 4:][:, :, ::-1])
    np.testing.assert_array_equal(taken[4], IMAGES[:, 2:10, 2:10])


def test_a_smaller_image_has_the_means_of_the_pixels_that_it_covers():
    plan = plan_of(("0-12x0-12",), ("whole", "mirrored"), (6, 6))
    ramp = np.broadcast_to(np.arange(12.0)[None, :, None, None], (1, *SHAPE))
    small = splitting.split(plan, jnp.asarray(ramp, jnp.float32))
    # Of a ramp, away from the borders, that is its value between two pixels.
    np.testing.assert_allclose(small[0][0, 1:5, 2, 0], [2.5, 4.5, 6.5, 8.5], rtol=1e-6)
    np.testing.assert_array_equal(small[2], small[1][:, :, ::-1])


def test_pixels_that_come_as_bytes_stay_on_their_grid():
    plan = plan_of(("0-12x0-12",), ("whole",), (5, 5))
    plan = dataclasses.replace(plan, mean=(0.4,), std=(0.2,))
    pixels = np.random.default_rng(1).integers(0, 256, (2, *SHAPE))
    small = splitting.split(plan, jnp.asarray((pixels / 255 - 0.4) / 0.2, jnp.float32))
    levels = np.asarray(small * 0.2 + 0.4) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)


@pytest.mark.parametrize(
    "grid, halo", [((2, 2), 0), ((2, 2), 2), ((1, 3), 1), ((3, 2), 2)]
)
def test_crops_of_a_grid_have_one_shape_and_cover_the_image(grid, halo):
    crops = views.grid_views((12, 13, 1), grid, halo)
    assert len({(view.height, view.width) for view in crops}) == 1
    assert len(crops) == grid[0] * grid[1]
    covered = np.zeros((12, 13), int)
    for view in crops:
        covered[
            view.top : view.top + view.height, view.left : view.left + view.width
        ] += 1
    assert covered.min() == 1
    tile = -(-12 // grid[0])
    assert crops[0].height == tile + halo * min(grid[0] - 1, 2)


def test_the_plan_says_that_it_is_not_exact():
    plan = plan_of(("0-8x0-12", "4-12x0-12"), ("whole",), (8, 12))
    assert not plan.exact and plan.k == 2 and plan.r == 1
    assert plan.output_shape == (4, 6, 4) and plan.features_shape == (6, 6, 4)
    assert plan.work_fraction == pytest.approx(8 / 12)
    with pytest.raises(ValueError, match=r"^images: float32 \[3, 9, 12, 1\] given"):
        splitting.split(plan, jnp.zeros((3, 9, 12, 1)))


def test_views_are_named_by_texts():
    assert views.view_of("whole", SHAPE, (6, 6)) == View(0, 0, 12, 12)
    assert views.view_of("2-9x0-12m", SHAPE, (6, 6)) == View(2, 0, 7, 12, True)
    assert views.text_of(View(2, 0, 7, 12, True)) == "2-9x0-12m"


@pytest.mark.parametrize(
    "text, message",
    [
        ("upper", "views: 'upper' given, whole, centre, mirrored or rows"),
        (
            "0-13x0-8",
            "views: '0-13x0-8' given, a part of 12x12 of at least 6x6 accepted",
        ),
        ("0-5x0-8", "views: '0-5x0-8' given, a part of 12x12 of at least 6x6 accepted"),
    ],
)
def test_a_wrong_view_is_refused(text, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        views.view_of(text, SHAPE, (6, 6))


def test_data_views_must_cover_the_image():
    with pytest.raises(ValueError, match="data views that cover the image accepted$"):
        plan_of(("0-8x0-8", "4-12x4-12"), (), (8, 8))


def test_crops_as_large_as_the_image_are_refused():
    with pytest.raises(
        ValueError,
        match=r"^grid: \(2, 2\) given, fewer crops of 12 pixels, or a smaller halo",
    ):
        views.grid_views(SHAPE, (2, 2), 6)


def test_a_network_that_fails_for_views_is_named():
    fails = lambda variables, x: x[:, :10].reshape(-1, 10, 12, 1)
    view = View(0, 0, 12, 12)
    with pytest.raises(
        ValueError, match=r"^f_conv: fails for images \(6, 6, 1\): take"
    ):
        views.plan_views(fails, {}, SHAPE, [view], [], (6, 6))
