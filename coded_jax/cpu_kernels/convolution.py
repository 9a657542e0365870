"""Two-dimensional convolutions, and their gradients, as oneDNN describes them.

JAX has one primitive, `conv_general_dilated`. A gradient by the images is one as well,
with the output's gradient dilated by the strides and the kernel reversed; and so is one
by the kernel, with batch and channels exchanged. oneDNN has code of its own for the
three, and this module tells which of them a primitive is.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Kind(enum.IntEnum):
    """A convolution, or one of its gradients; numbered as in the C++ source."""

    FORWARD = 0
    IMAGE_GRADIENT = 1
    KERNEL_GRADIENT = 2


class Array(NamedTuple):
    """Sizes of an array's axes in some order, and their strides in elements."""

    sizes: Shape
    strides: Shape

    def ordered(self, axes: Sequence[int]) -> Array:
        """Returns the array with its axes in another order."""
        sizes, strides = (tuple(x[axis] for axis in axes) for x in self)
        return Array(sizes, strides)

    def divided(self, axis: int, groups: int) -> Array:
        """Returns the array with a first axis of `groups`, cut out of another axis; the
        array itself for one group."""
        if groups == 1:
            return self
        sizes, stride = list(self.sizes), self.strides[axis]
        sizes[axis] //= groups
        first = stride * sizes[axis]
        return Array((groups, *sizes), (first, *self.strides))


class Convolution(NamedTuple):
    """A convolution, whose result any of the three arrays may be.

    Attributes:
      kind: tells which array is the result: outputs, images, kernel.
      images: `[N, C, H, W]`.
      kernel: `[O, C, P, Q]`, or of G groups `[G, O/G, C/G, P, Q]`.
      outputs: `[N, O, M, M']`.
      strides: of the windows.
      dilation: of the kernel; 1 for none.
      padding: before the first row and column; what comes after the last ones follows
        from the sizes.
    """

    kind: Kind
    images: Array
    kernel: Array
    outputs: Array
    strides: Shape
    dilation: Shape
    padding: Shape

    @property
    def padding_after(self) -> Shape:
        """Rows and columns behind the last ones; negative where some are not used."""
        outputs, taps, images = (
            np.array(array.sizes[-2:])
            for array in (self.outputs, self.kernel, self.images)
        )
        windows = (outputs - 1) * self.strides + (taps - 1) * self.dilation + 1
        return tuple((windows - images - self.padding).tolist())

    def supported(self) -> bool:
        """Returns whether oneDNN accepts the padding, and no array is empty."""
        arrays = (self.images, self.kernel, self.outputs)
        # Rows that no window reaches are fewer than a stride, or the sizes do not fit.
        behind = zip(self.padding_after, self.strides, strict=True)
        return (
            min(self.padding) >= 0
            and all(after > -stride for after, stride in behind)
            and all(math.prod(array.sizes) for array in arrays)
        )

    def attributes(self) -> dict[str, Shape]:
        """Returns the attributes of the custom call, see the C++ source."""
        less = tuple(dilation - 1 for dilation in self.dilation)
        return {
            "image": self.images.sizes,
            "image_strides": self.images.strides,
            "kernel": self.kernel.sizes,
            "kernel_strides": self.kernel.strides,
            "output": self.outputs.sizes,
            "output_strides": self.outputs.strides,
            "geometry": (*self.strides, *less, *self.padding, *self.padding_after),
        }


def row_major(shape: Shape) -> Array:
    """Returns the array of a shape, its last axis the one that is dense."""
    strides = (math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return Array(tuple(shape), tuple(strides))


def describe(
    lhs: Shape, rhs: Shape, out: Shape, p: dict[str, Any]
) -> Convolution | None:
    """Describes a `conv_general_dilated` of arrays in oneDNN's terms.

    Of the gradient by the images, `rhs` is the reversed kernel; the arrays are those of
    the kernel as it was.

    Args:
      lhs, rhs, out: their shapes.
      p: parameters of the primitive.

    Returns:
      None for what oneDNN has no code for.
    """
    groups, batch_groups = p["feature_group_count"], p["batch_group_count"]
    if len(lhs) != 4 or 1 not in (groups, batch_groups):
        return None
    axes = p["dimension_numbers"]  # batch or outputs, features, rows, columns
    left, right, result = (
        row_major(shape).ordered(order)
        for shape, order in zip((lhs, rhs, out), axes, strict=True)
    )
    strides, dilation = tuple(p["window_strides"]), tuple(p["rhs_dilation"])
    padding = tuple(before for before, _ in p["padding"])
    exchanged = (1, 0, 2, 3)
    if tuple(p["lhs_dilation"]) != (1, 1):
        if strides != (1, 1) or batch_groups > 1:
            return None
        # Of each group's own channels, the kernel has outputs as features and images as
        # outputs.
        kernel = right.ordered(exchanged)
        if groups > 1:
            kernel = right.divided(0, groups).ordered((0, 2, 1, 3, 4))
        reach = zip(kernel.sizes[-2:], dilation, padding, strict=True)
        convolution = Convolution(
            Kind.IMAGE_GRADIENT,
            images=result,
            kernel=kernel,
            outputs=left,
            strides=tuple(p["lhs_dilation"]),
            dilation=dilation,
            padding=tuple((taps - 1) * d - before for taps, d, before in reach),
        )
    elif batch_groups > 1 or axes.lhs_spec[1] == axes.rhs_spec[1] == 0:
        # What is summed over was the batch before the gradient was taken: in memory it
        # is the first axis of both arrays, and channels never are.
        if groups > 1:
            return None
        convolution = Convolution(
            Kind.KERNEL_GRADIENT,
            images=left.ordered(exchanged),
            kernel=result.ordered(exchanged).divided(0, batch_groups),
            outputs=right.ordered(exchanged),
            strides=dilation,
            dilation=strides,
            padding=padding,
        )
    else:
        if min(behind for _, behind in p["padding"]) < 0:
            return None
        convolution = Convolution(
            Kind.FORWARD,
            images=left,
            kernel=right.divided(0, groups),
            outputs=result,
            strides=strides,
            dilation=dilation,
            padding=padding,
        )
    return convolution if convolution.supported() else None
