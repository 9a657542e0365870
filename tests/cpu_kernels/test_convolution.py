"""Convolutions by oneDNN against those of XLA, with their gradients."""

import concurrent.futures
import functools
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from coded_jax.cpu_kernels import lowering
from tests.cpu_kernels.reference import (
    assert_close,
    by_own_kernels,
    by_xla,
    randoms,
    with_gradients,
)

pytestmark = pytest.mark.usefixtures("onednn")

CALL = "coded_jax_convolve"
LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x, kernel, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUT, **options
    )


def text_of(f, *args):
    """The program that JAX lowers for this machine."""
    lowering.install()
    return jax.jit(f).lower(*args).as_text()


@given(
    batch=st.integers(1, 5),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    taps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.one_of(
        st.sampled_from(["SAME", "VALID"]),
        st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2),
    ),
    groups=st.sampled_from([1, 1, 2, 3]),
    maps=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_convolutions_are_those_of_xla(
    batch, sizes, taps, strides, dilation, padding, groups, maps
):
    x, kernel = randoms(
        0, (batch, *sizes, groups * maps[0]), (*taps, maps[0], groups * maps[1])
    )
    f = functools.partial(
        convolve,
        strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        feature_group_count=groups,
    )
    assume(np.prod(jax.eval_shape(f, x, kernel).shape))
    both = with_gradients(f)
    assert_close(by_own_kernels(both, x, kernel), by_xla(both, x, kernel))


@pytest.mark.parametrize("options", [{}, {"strides": (2, 1)}], ids=str)
@pytest.mark.parametrize("groups", [1, 8])  # 8: depthwise
def test_the_convolution_and_both_gradients_are_calls(groups, options):
    x, kernel = randoms(1, (4, 9, 8, 8), (3, 3, 8 // groups, 8))
    f = functools.partial(convolve, feature_group_count=groups, **options)
    text = text_of(with_gradients(f), x, kernel)
    assert text.count(f"@{CALL}(") == 3
    assert "stablehlo.convolution" not in text


@pytest.mark.parametrize("axes, calls", [((0, None), 1), ((0, 0), 1)])
def test_vmap(axes, calls):
    """Over pieces, and over pieces and kernels: one call."""
    x, kernel = randoms(3, (3, 2, 6, 5, 4), (3, 3, 3, 4, 2))
    x, kernel = (a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes))  # noqa: B905
    f = jax.vmap(convolve, in_axes=axes)
    text = text_of(f, x, kernel)
    assert text.count(f"@{CALL}(") == calls
    one = lambda i: (a[i] if axis == 0 else a for a, axis in zip((x, kernel), axes))  # noqa: B905
    expected = jnp.stack([by_xla(convolve, *one(i)) for i in range(3)])
    assert_close(by_own_kernels(f, x, kernel), expected)
    both = with_gradients(f)
    assert_close(by_own_kernels(both, x, kernel), by_xla(both, x, kernel))


def rounded(x):
    return jnp.asarray(x, "bfloat16").astype("float32")


@pytest.mark.parametrize("precision", ["bfloat16", "BF16_BF16_F32", "highest"], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_products_of_bfloat16_are_those_of_rounded_numbers(precision, groups):
    """Of the convolution and of both gradients, where asked for and there."""
    x, kernel, g = randoms(6, (4, 9, 8, 32), (3, 3, 32 // groups, 48), (4, 9, 8, 48))
    f = functools.partial(convolve, feature_group_count=groups)

    def both(x, kernel, g):
        of_images = jax.linear_transpose(lambda x: f(x, kernel), x)
        of_kernel = jax.linear_transpose(lambda kernel: f(x, kernel), kernel)
        return f(x, kernel), *of_images(g), *of_kernel(g)

    asked = precision in ("bfloat16", "BF16_BF16_F32") and groups == 1
    has = asked and "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    with jax.default_matmul_precision(precision):
        text, result = text_of(both, x, kernel, g), by_own_kernels(both, x, kernel, g)
    assert text.count("bfloat16 = true") == (3 if has else 0)
    assert text.count("bfloat16 = false") == (0 if has else 3)
    exact = by_own_kernels(both, x, kernel, g)
    expected = both(*map(rounded, (x, kernel, g))) if has else exact
    assert_close(result, expected, 1e-6)
    for a, b in zip(result, exact, strict=True):
        assert (np.abs(a - b).max() > 1e-3) == has


CUT = {"padding": ((-1, 1), (0, 0))}
TRANSPOSED = {"lhs_dilation": (2, 2), "strides": (2, 2), "padding": ((1, 1), (1, 1))}


@pytest.mark.parametrize(
    "x, kernel, options",
    [
        ((2, 9, 3), (3, 3, 4), {}),
        ((2, 6, 5, 4, 3), (2, 2, 2, 3, 4), {}),
        ((2, 6, 5, 3), (3, 3, 3, 4), CUT),
        ((2, 6, 5, 3), (3, 3, 3, 4), TRANSPOSED),
        ((0, 6, 5, 3), (3, 3, 3, 4), {}),
    ],
    ids=["1 axis", "3 axes", "cut", "strided and transposed", "empty"],
)
def test_what_onednn_has_no_code_for_stays(x, kernel, options):
    axes = "HWD"[: len(x) - 2]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    usual = {"strides": (1,) * len(axes), "padding": "VALID"} | options
    strides, padding = usual.pop("strides"), usual.pop("padding")
    f = lambda x, k: lax.conv_general_dilated(
        x, k, strides, padding, dimension_numbers=layout, **usual
    )
    x, kernel = randoms(6, x, kernel)
    assert CALL not in text_of(f, x, kernel)
    if options is not CUT:  # XLA's CPU backend reads beyond the array (jax 0.10.2)
        assert_close(by_own_kernels(f, x, kernel), by_xla(f, x, kernel))


def test_exported_programs_hold_no_call():
    x, kernel = randoms(9, (2, 6, 5, 3), (3, 3, 3, 4))
    (b,) = jax.export.symbolic_shape("b")
    any_batch = jax.ShapeDtypeStruct((b, 6, 5, 3), "float32")
    for spec in (x, any_batch):
        exported = jax.export.export(jax.jit(convolve))(spec, kernel)
        assert CALL not in exported.mlir_module()
        assert_close(exported.call(x, kernel), by_own_kernels(convolve, x, kernel))


def test_programs_that_the_compiler_divides_stay():
    """A custom call cannot be divided; in `shard_map` each device has its own."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    x, kernel = randoms(10, (8, 6, 5, 3), (3, 3, 3, 4))
    divided = jax.device_put(x, NamedSharding(mesh, P("data")))
    by_parts = jax.shard_map(
        convolve, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data")
    )
    assert CALL not in text_of(convolve, divided, kernel)
    assert CALL in text_of(by_parts, divided, kernel)
    expected = by_xla(convolve, x, kernel)
    for f in (convolve, by_parts):
        assert_close(by_own_kernels(f, divided, kernel), expected)


def test_threads_compute_at_once():
    shapes = [(batch, 8, 7, maps) for batch in (1, 2, 16) for maps in (1, 4, 9)]
    both = jax.jit(with_gradients(convolve))
    cases = [randoms(i, shape, (3, 3, shape[3], 8)) for i, shape in enumerate(shapes)]
    alone = [jax.device_get(both(*case)) for case in cases]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(both, *case) for _ in range(20) for case in cases]
        together = [jax.device_get(run.result()) for run in runs]
    for i, result in enumerate(together):
        jax.tree.map(np.testing.assert_array_equal, result, alone[i % len(cases)])
