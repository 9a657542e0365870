"""Convolutions with bias and ReLU against what they stand for."""

from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from coded_jax.cpu_kernels.layer import Layer, convolution_layer
from tests.cpu_kernels.reference import (
    assert_close,
    by_own_kernels,
    by_xla,
    randoms,
    with_gradients,
)

pytestmark = pytest.mark.usefixtures("onednn")

CALL = "coded_jax_convolve_layer"


@given(
    batch=st.integers(1, 3),
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    taps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["SAME", "VALID", ((1, 2), (0, 1))]),
    groups=st.sampled_from([1, 2]),
    relu=st.booleans(),
)
def test_layers_are_what_they_stand_for(
    batch, sizes, taps, strides, dilation, padding, groups, relu
):
    x, kernel, bias = randoms(
        0, (batch, *sizes, 2 * groups), (*taps, 2, 3 * groups), (3 * groups,)
    )

    def f(x, kernel, bias):
        layer = Layer(relu, strides, padding, dilation, groups)
        return convolution_layer(x, kernel, bias, layer)

    assume(np.prod(jax.eval_shape(f, x, kernel, bias).shape))
    operands = (x, kernel, bias)
    assert_close(by_own_kernels(f, *operands), by_xla(f, *operands))
    both = with_gradients(f)
    assert_close(by_own_kernels(both, *operands), by_xla(both, *operands))


def by_parts(x, kernel, bias):
    layout = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    return jnp.maximum(y + bias[None, None, None], 0)


def layer(x, kernel, bias):
    return convolution_layer(x, kernel, bias, Layer(relu=True))


def test_a_layer_has_the_precision_that_holds_where_it_is_called():
    """Also the second time: what it stands for is made once for each precision."""
    operands = randoms(2, (3, 6, 5, 16), (3, 3, 16, 16), (16,))
    exact = by_own_kernels(layer, *operands)
    has = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    with jax.default_matmul_precision("bfloat16"):
        close = by_own_kernels(lambda *x: layer(*x), *operands)
        text = str(jax.make_jaxpr(layer)(*operands))
    assert "Precision.DEFAULT" in text
    # Fingerprints of networks, as older folders have them, are of such texts.
    assert f"layer={Layer(True)}" in text
    assert Layer._fields == ("relu", "strides", "padding", "dilation", "groups")
    x, kernel = (jnp.asarray(a, "bfloat16").astype("float32") for a in operands[:2])
    expected = by_xla(layer, x, kernel, operands[2]) if has else exact
    assert_close(close, expected, 1e-6)
    assert (np.abs(close - exact).max() > 1e-3) == has
    assert_close(by_own_kernels(lambda *x: layer(*x), *operands), exact, 0)


OPERANDS = randoms(1, (3, 2, 6, 5, 4), (3, 3, 3, 4, 2), (3, 2))


def operands(axes):
    return [a if axis == 0 else a[0] for a, axis in zip(OPERANDS, axes, strict=True)]


@pytest.mark.parametrize("axes", [(0, None, None), (0, 0, 0), (None, 0, None)])
def test_vmap(axes):
    f = jax.vmap(layer, in_axes=axes)
    expected = jnp.stack(
        [
            by_xla(layer, *(a[i] if axis == 0 else a for a, axis in pairs))
            for i in range(3)
            for pairs in [list(zip(operands(axes), axes, strict=True))]
        ]
    )
    assert_close(by_own_kernels(f, *operands(axes)), expected)
    pieces_alone = axes == (0, None, None)
    text = jax.jit(f).lower(*operands(axes)).as_text()
    assert (CALL in text) == pieces_alone


def test_others_see_convolutions():
    args = operands((None,) * 3)
    assert CALL in jax.jit(layer).lower(*args).as_text()
    tpu = jax.jit(layer).trace(*args).lower(lowering_platforms=("tpu",)).as_text()
    exported = jax.export.export(jax.jit(layer))(*args).mlir_module()
    half = [a.astype("bfloat16") for a in args]
    for text in (tpu, exported, jax.jit(layer).lower(*half).as_text()):
        assert CALL not in text and "stablehlo.convolution" in text


def test_one_layer_on_two_meshes():
    """What is kept of a layer, traced on one mesh, must not reach another."""
    args = operands((None,) * 3)
    for name in ("first", "second"):
        mesh = jax.make_mesh((1,), (name,), axis_types=(AxisType.Auto,))
        sharded = jax.shard_map(
            lambda *args: 2 * layer(*args),
            mesh=mesh,
            in_specs=(P(name), P(), P()),
            out_specs=P(name),
            check_vma=False,
        )
        assert_close(jax.jit(sharded)(*args), 2 * by_xla(layer, *args))


@pytest.mark.parametrize("groups", [1, 16])
def test_nan_stays_nan_and_in_its_image(groups):
    """As of a lost result: oneDNN's own ReLU makes 0 of it."""
    x, kernel, bias = randoms(5, (4, 6, 5, 16), (3, 3, 16 // groups, 16), (16,))
    f = lambda *args: convolution_layer(*args, Layer(relu=True, groups=groups))
    assert CALL in jax.jit(f).lower(x, kernel, bias).as_text()
    clean = by_own_kernels(f, x, kernel, bias)
    x[1] = np.nan
    y = np.asarray(by_own_kernels(f, x, kernel, bias))
    assert np.isnan(y[1]).all()
    others = np.array([0, 2, 3])
    np.testing.assert_array_equal(y[others], clean[others])
    assert np.isnan(by_own_kernels(f, clean, kernel, np.nan * bias)).all()
