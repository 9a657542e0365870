"""Codes on curves: against their definitions and SciPy's splines."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline, make_smoothing_spline

from coded_jax.codes import curves, linear
from tests.codes.rival_examples import random


def test_berrut_is_the_quotient_of_its_definition():
    nodes, points = np.array([1.0, 0.3, -0.2, -1.0]), np.array([0.5, -0.7])
    values = random(1, 4)
    signs = np.array([1, -1, 1, -1])
    expected = [
        (signs * values / (z - nodes)).sum() / (signs / (z - nodes)).sum()
        for z in points
    ]
    interpolated = curves.berrut_matrix(nodes, points) @ values
    np.testing.assert_allclose(interpolated, expected)
    np.testing.assert_array_equal(curves.berrut_matrix(nodes, nodes), np.eye(4))


@pytest.mark.parametrize("smoothing", [0.01, 3.0])
def test_smoothing_spline_is_scipys(smoothing):
    nodes = np.array([-1.0, -0.4, 0.1, 0.15, 0.8, 1.0])
    values, points = random(2, 6).astype("d"), np.array([-1.3, -0.6, 0.12, 1.0, 1.4])
    # Theirs minimises the sum of squares, ours the mean.
    theirs = make_smoothing_spline(nodes, values, lam=6 * smoothing)
    smoothed = curves.spline_matrix(nodes[::-1], points, smoothing) @ values[::-1]
    inside = np.abs(points) <= 1
    np.testing.assert_allclose(smoothed[inside], theirs(points[inside]), atol=1e-8)
    # Beyond the nodes ours goes on straight.
    slopes = theirs(nodes[[0, -1]], 1)
    expected = theirs(nodes[[0, -1]]) + slopes * (points[~inside] - nodes[[0, -1]])
    np.testing.assert_allclose(smoothed[~inside], expected, atol=1e-8)


@pytest.mark.parametrize("count", [3, 7])
def test_spline_without_smoothing_is_the_natural_one(count):
    nodes = np.sort(linear.chebyshev(count, 1))
    values, points = random(3, count).astype("d"), np.linspace(nodes[0], nodes[-1], 9)
    natural = CubicSpline(nodes, values, bc_type="natural")(points)
    np.testing.assert_allclose(
        curves.spline_matrix(nodes, points, 0) @ values, natural, atol=1e-10
    )


def test_two_points_make_a_straight_line():
    weights = curves.spline_matrix(np.array([1.0, -1.0]), np.array([0.5, 2.0]), 0.1)
    np.testing.assert_allclose(weights @ [3.0, 1.0], [2.5, 4.0])
