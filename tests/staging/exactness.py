"""The check that the parts of a network give what it gives, split and whole."""

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.inference.operations import count_operations
from coded_jax.splitting import cut, merge, split
from coded_jax.types import apart, together


def split_logits(plan, variables, images):
    """Computes a network by its parts, every coded stage on its pieces."""
    state = images
    plans = {cost.blocks: cost.plan for cost in plan.parts if cost.plan}
    for i, block in enumerate(plan.base.blocks):
        split_plan = plans.get((i + 1, i + 1))
        if split_plan is None:
            state = block(variables, state)
            continue
        x, kept = apart(state)
        pieces = split(split_plan, x)
        outputs = jnp.stack([block(variables, piece) for piece in pieces])
        state = together(merge(split_plan, cut(split_plan, outputs)), kept)
    return plan.base.head(variables, state)


def assert_exact(model, variables, plan, image_shape, batch=3):
    """Checks logits, shapes, variables and operations of a plan of stages.

    `plan` is made for `variables` themselves.
    """
    images = jax.random.normal(jax.random.key(0), (batch, *image_shape))
    options = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(
        lambda *args: (model(args[0], args[2]), split_logits(plan, *args[1:])),
        compiler_options=options,
    )
    whole, logits = compiled(variables, plan.variables, images)
    scale = np.abs(whole).max()
    assert scale > 1e-3
    np.testing.assert_allclose(logits, whole, rtol=0, atol=2e-5 * scale)

    # All leaves that matter are in the parts, and the work of these is that of all.
    total = count_operations(model, variables, images[:1])
    flops = sum(cost.flops for cost in plan.parts)
    # Of a choice by platform all branches count, small ones here.
    np.testing.assert_allclose(flops, total, rtol=0.02)
    for cost, block in zip(plan.parts, plan.base.blocks, strict=False):
        if cost.plan is None:
            continue
        piece = jax.ShapeDtypeStruct((1, *cost.plan.piece_shape), "float32")
        counted = count_operations(block, plan.variables, piece)
        np.testing.assert_allclose(cost.trip.device_flops, counted, rtol=1e-6)
        assert cost.trip.bytes_in == 4 * np.prod(cost.plan.piece_shape)
        assert cost.trip.bytes_out == 4 * np.prod(cost.plan.share_shape)
