"""Stacks of convolutions that train faster on CPUs, by matrix products.

XLA's CPU backend runs a convolution of few channels on one core, its weight gradient
at half that speed, and convolutions of tiny maps far slower still. Here the columns
that a row of the kernel sees are put side by side as channels; each row of the kernel
is then one matrix product, shifted by whole rows, and so are both gradients. Rows and
columns of the kernel that meet nothing but padding are left out. The sums are those of
`lax.conv_general_dilated` in another order.

The products are only faster while their operands stay in cache and are written once,
so a batch goes through the whole stack a chunk at a time (see `CHUNK_BYTES`).

Measured on 2 cores of an AMD EPYC (Zen 5) with jax 0.10.2, at batch 64: gradient of six
3x3 layers of 32 maps on 20x28 maps 50 ms instead of 88 ms; of 128 maps on 2x4 maps
4.5 ms instead of 74 ms.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from coded_jax.checks import require
from coded_jax.splitting import platform_specialised

Layer = tuple[jax.Array, jax.Array]  # kernel [q, q', maps in, maps out], bias

# Of one layer's outputs, which then fit into a core's second-level cache with what is
# made of them. Chunks of 8, 16 and 32 images of 20x28 maps of 32 channels took 64, 66
# and 85 ms of processor time for the gradient of a batch of 64.
CHUNK_BYTES = 2**20


def dilated_stack(
    x: jax.Array, layers: Sequence[Layer], dilations: Sequence[int]
) -> jax.Array:
    """Applies convolutions without stride, padded to keep the size, ReLU between them.

    On CPUs by matrix products, elsewhere by `lax.conv_general_dilated`.

    Args:
      x: `[B, h, w, maps]`; `B` may be symbolic, as in `jax.export`.
      layers: kernels of odd size, and biases.
      dilations: one per layer.

    Returns:
      `[B, h, w, maps of the last layer]`, of `x`'s dtype.
    """

    def run(conv: Callable, x: jax.Array, layers: Sequence[Layer]) -> jax.Array:
        for i, ((kernel, bias), dilation) in enumerate(
            zip(layers, dilations, strict=True)
        ):
            x = conv(x, _live(kernel, x, dilation), dilation) + bias[None, None, None]
            x = jax.nn.relu(x) if i < len(layers) - 1 else x
        return x

    def in_chunks(x: jax.Array, layers: Sequence[Layer]) -> jax.Array:
        stack = functools.partial(run, conv_by_products, layers=layers)
        widest = max(bias.size for _, bias in layers)
        image = x.shape[1] * x.shape[2] * widest * x.dtype.itemsize
        return map_chunks(stack, x, max(1, CHUNK_BYTES // image))

    return platform_specialised(
        x, tuple(layers), cpu=in_chunks, default=functools.partial(run, conv_by_lax)
    )


def map_chunks(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, most: int
) -> jax.Array:
    """Applies `f` to equal chunks of at most `most` examples, one after the other.

    Args:
      f: `[b, ..] -> [b, ..]`, every example on its own.
      x: `[B, ..]`; in one chunk if `B` is symbolic.
      most: examples in a chunk.
    """
    batch = x.shape[0]
    if not isinstance(batch, int) or batch <= most:
        return f(x)
    chunks = -(-batch // most)
    size = -(-batch // chunks)
    x = jnp.pad(x, [(0, chunks * size - batch)] + [(0, 0)] * (x.ndim - 1))
    y = lax.map(f, x.reshape(chunks, size, *x.shape[1:]))
    return y.reshape(chunks * size, *y.shape[2:])[:batch]


def conv_by_lax(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Convolves, padded with zeros, `[B, h, w, C], [q, q', C, D] -> [B, h, w, D]`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def conv_by_products(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Computes `conv_by_lax` by matrix products, for kernels of odd size."""
    return _conv(x, _live(kernel, x, dilation), dilation)


def _live(kernel: jax.Array, x: jax.Array, dilation: int) -> jax.Array:
    """Returns `kernel` without rows and columns that meet nothing but padding."""
    rows, columns = (
        _live_taps(taps, size, dilation)
        for taps, size in zip(kernel.shape[:2], x.shape[1:3], strict=True)
    )
    return kernel[rows, columns]


def conv_by_rows(
    x: jax.Array, kernel: jax.Array, strides: object, padding: str, **options: object
) -> jax.Array:
    """Convolves few maps with stride 1 and `VALID` padding, a row in one product.

    `[B, h, w, C], [q, q', C, D] -> [B, m, m', D]`, where one product makes a whole row
    of outputs from the q rows of inputs that it sees. Most of that matrix is zeros, but
    a product so wide is fast: LeNet-5 on 192 pieces of 20x28 took 1.3 ms and 1.9 ms
    with the gradient, by `lax` 1.9 and 10.6 ms (2 cores, jax 0.10.2).
    """
    require("padding", padding, padding == "VALID", "'VALID'")
    batch, h, w, maps = x.shape
    q, q2, _, depth = kernel.shape
    m, m2 = h - q + 1, w - q2 + 1
    flat = x.reshape(batch, h, w * maps)
    rows = jnp.concatenate([flat[:, i : i + m] for i in range(q)], axis=2)
    # Output column j sees the columns from j on: [q, w, C, m', D].
    places = [((0, 0), (j, w - q2 - j), (0, 0), (0, 0)) for j in range(m2)]
    matrix = jnp.stack([jnp.pad(kernel, place) for place in places], axis=3)
    y = jnp.dot(rows, matrix.reshape(q * w * maps, m2 * depth))
    return y.reshape(batch, m, m2, depth)


@jax.custom_vjp
def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Computes `nn.max_pool(x, (2, 2), (2, 2))`, with a faster gradient on CPUs.

    Of equal maxima the first, row by row, gets the gradient, as in `nn.max_pool`.
    """
    return _windows(x).max((2, 4))


def _pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool_2x2(x)
    return y, (x, y)


def _pool_backward(
    saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array]:
    x, y = saved
    spread = lambda a: a[:, :, None, :, None]
    place = jnp.arange(4).reshape(1, 1, 2, 1, 2, 1)
    first = jnp.where(_windows(x) == spread(y), place, 4).min((2, 4))
    dx = jnp.where(spread(first) == place, spread(g), 0)
    (batch, h, _, w, _, c), (height, width) = dx.shape, x.shape[1:3]
    odd = ((0, 0), (0, height - 2 * h), (0, width - 2 * w), (0, 0))
    return (jnp.pad(dx.reshape(batch, 2 * h, 2 * w, c), odd),)


max_pool_2x2.defvjp(_pool_forward, _pool_backward)


def _windows(x: jax.Array) -> jax.Array:
    """Reshapes `[B, h, w, C]` to `[B, h // 2, 2, w // 2, 2, C]`; odd ends are cut."""
    batch, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(batch, h // 2, 2, w // 2, 2, c)


def _live_taps(taps: int, size: int, dilation: int) -> slice:
    """Returns the taps that reach a map of `size`: less than it off the middle one."""
    reach = min(taps // 2, (size - 1) // dilation)
    return slice(taps // 2 - reach, taps // 2 + reach + 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    return _by_rows(_columns(x, kernel.shape[1], dilation), kernel, dilation)


def _forward(
    x: jax.Array, kernel: jax.Array, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, dilation), (x, kernel)


def _backward(
    dilation: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    taps, columns, c, d = kernel.shape
    # The gradient of a correlation is the correlation with the rotated kernel.
    rotated = kernel[::-1, ::-1].swapaxes(2, 3)
    wide = _columns(g, columns, dilation)
    dx = _by_rows(wide, rotated, dilation)
    offsets = _offsets(taps, dilation)
    if c < d:  # then the columns of x are fewer than those of g
        wide = _columns(x, columns, dilation)
        dw = [_contract(wide, _shift(g, 1, -offset)) for offset in offsets]
        return dx, jnp.stack(dw).reshape(kernel.shape).astype(kernel.dtype)
    dw = [_contract(_shift(x, 1, offset), wide) for offset in offsets]
    dw = jnp.stack(dw).reshape(taps, c, columns, d).swapaxes(1, 2)[:, ::-1]
    return dx, dw.astype(kernel.dtype)


_conv.defvjp(_forward, _backward)


def _columns(x: jax.Array, taps: int, dilation: int) -> jax.Array:
    """Puts the inputs of each column of a kernel side by side, `[B, h, w, taps*C]`."""
    return jnp.concatenate([_shift(x, 2, o) for o in _offsets(taps, dilation)], axis=3)


def _by_rows(wide: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Sums a product per row, `[B, h, w, q'*C], [q, q', C, D] -> [B, h, w, D]`."""
    terms = []
    for row, offset in zip(kernel, _offsets(len(kernel), dilation), strict=True):
        row = row.reshape(-1, row.shape[-1])
        y = jnp.dot(wide, row, preferred_element_type=jnp.float32)
        terms.append(_shift(y, 1, offset))
    return sum(terms[1:], terms[0]).astype(wide.dtype)


def _contract(a: jax.Array, b: jax.Array) -> jax.Array:
    """Sums products over all positions, `[.., C], [.., D] -> [C, D]`."""
    # Flat, since XLA transposes operands with several contracted axes.
    a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
    axes = (((0,), (0,)), ((), ()))
    return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _offsets(taps: int, dilation: int) -> list[int]:
    return [(i - taps // 2) * dilation for i in range(taps)]


def _shift(x: jax.Array, axis: int, offset: int) -> jax.Array:
    """Shifts: `out[i] = x[i + offset]` along `axis`, zero outside `x`."""
    # A slice and then a pad: XLA does not vectorise negative padding.
    size, low, high = x.shape[axis], max(0, -offset), max(0, offset)
    x = lax.slice_in_dim(x, high, size - low, axis=axis)
    return jnp.pad(x, [(low, high) if a == axis else (0, 0) for a in range(x.ndim)])
