"""Convolutions of fixed weights, and the check that a split of them is exact."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from coded_jax.splitting import SplitPlan, cut, merge, split
from coded_jax.splitting.plan import make_plan

# Of programs that run but once: three times as fast to compile.
COMPILED_QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def conv(
    x,
    kernel=(3, 3),
    stride=(1, 1),
    dilation=(1, 1),
    padding="SAME",
    seed=0,
    groups=1,
    maps=2,
    gaps=(1, 1),
):
    """Applies a convolution with a bias, of fixed random weights."""
    shape = (*kernel, x.shape[-1] // groups, maps)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=shape, scale=np.prod(shape[:3]) ** -0.5)
    y = lax.conv_general_dilated(
        x,
        jnp.asarray(weights, x.dtype),
        stride,
        padding,
        lhs_dilation=gaps,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    bias = np.resize([0.5, -0.3, 0.2, 0.7], maps)
    return y + jnp.asarray(bias, x.dtype).reshape(1, 1, 1, maps)


def plan_of(f, shape, grid) -> SplitPlan:
    """Plans the split of a function without variables."""
    return make_plan(lambda variables, x: f(x), {}, shape, grid)


def lenet_args(lenet):
    """Returns the arguments of `make_plan` for LeNet-5."""
    base, variables = lenet
    return base.f_conv, variables, (28, 28, 1)


def assert_exact(f, plan: SplitPlan):
    """Checks `merge(f_conv(split(x))) == f_conv(x)`, and shapes and work."""
    shape = (plan.rows.size, plan.columns.size, plan.channels)
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=COMPILED_QUICKLY)
    def both(images):
        pieces = split(plan, images)
        shares = cut(plan, jax.vmap(f)(pieces))
        return f(images), merge(plan, shares), pieces, shares

    whole, merged, pieces, shares = both(images)
    chex.assert_shape(pieces, (plan.k, 2, *plan.piece_shape))
    chex.assert_shape(shares, (plan.k, 2, *plan.share_shape))
    scale = np.abs(whole).max()
    assert scale > 0.1
    np.testing.assert_allclose(merged, whole, rtol=0, atol=1e-5 * scale)
