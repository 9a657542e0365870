"""Operations of linear codes, counted by hand."""

import numpy as np

from coded_jax.codes.linear import matrix_flops


def test_matrix_of_a_pattern_by_hand():
    weights = np.zeros((8, 2, 3))
    weights[0b110] = [[0.0, -1.0, 2.0], [0.0, 1.0, 0.0]]  # result 0 is lost
    assert matrix_flops(weights, (0,), systematic=True) == 3
    assert matrix_flops(weights, (0,), systematic=False) == 3
    weights[0b110, 1] = [0.0, 0.5, 0.0]
    assert matrix_flops(weights, (0,), systematic=False) == 4
    weights[0b101] = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.5]]  # result 1 is lost
    assert matrix_flops(weights, (1,), systematic=True) == 1
