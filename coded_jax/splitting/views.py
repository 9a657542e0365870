"""Views: a split of one round that is not exact, see `types.ViewPlan`.

Views are named by texts: `whole`, the whole image made smaller; `mirrored`, the same
left to right; `centre`, a crop in the middle; or rows and columns of a part, as
`16-80x0-64`, with an `m` behind it if it is mirrored. A part that is larger than a view
is made smaller by triangles as wide as its step (`jax.image.resize`, `"linear"`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import first_line, is_integer, require, require_shape
from coded_jax.types import PyTree, View, ViewPlan

NAMES = ("whole", "centre", "mirrored")
"""Views with a name; the first r of them are the parity if no other is chosen."""
WORDING = f"{', '.join(NAMES)} or rows and columns as 16-80x0-64, or 16-80x0-64m,"
_PART = re.compile(r"(\d+)-(\d+)x(\d+)-(\d+)(m?)")
LEVELS, HALF = 255, 0.501
"""The highest value of a pixel that comes as a byte, and what it is rounded by: means
of bytes are often halves, which rounding errors must not decide about."""


def is_view(text: object) -> bool:
    """Returns whether a text names a view, of images of some size."""
    return isinstance(text, str) and (text in NAMES or bool(_PART.fullmatch(text)))


def view_of(
    text: str, image_shape: tuple[int, int, int], size: tuple[int, int]
) -> View:
    """Returns the view that a text names.

    Args:
      text: see above.
      image_shape: `(H, W, C)`.
      size: `(h, w)` of a view.

    Raises:
      ValueError: it names none, or one outside the image or smaller than a view.
    """
    require("views", text, is_view(text), WORDING)
    (height, width, _), (rows, columns) = image_shape, size
    if text == "centre":
        return View((height - rows) // 2, (width - columns) // 2, rows, columns)
    if text in NAMES:
        return View(0, 0, height, width, text == "mirrored")
    match = _PART.fullmatch(text)
    assert match is not None
    top, bottom, left, right = map(int, match.groups()[:4])
    fits = bottom <= height and right <= width
    fits = fits and bottom - top >= rows and right - left >= columns
    accepted = f"a part of {height}x{width} of at least {rows}x{columns}"
    require("views", text, fits, accepted)
    return View(top, left, bottom - top, right - left, match[5] == "m")


def text_of(view: View) -> str:
    """Returns the text that names a view by its rows and columns."""
    bottom, right = view.top + view.height, view.left + view.width
    return f"{view.top}-{bottom}x{view.left}-{right}{'m' * view.mirrored}"


def grid_views(
    image_shape: tuple[int, int, int], grid: tuple[int, int], halo: int = 0
) -> list[View]:
    """Returns crops that cover an image, row by row of a grid, all of one shape.

    Args:
      image_shape: `(H, W, C)`.
      grid: crops along height and width.
      halo: pixels that a crop has beyond its own part of the image, at each side that
        is no border of it.

    Raises:
      ValueError: `halo` is negative, or a crop would be the image or have no pixels.
    """
    require("halo", halo, is_integer(halo) and halo >= 0, "an integer of 0 or more")
    axes = []
    for size, parts in zip(image_shape, grid, strict=False):
        tile = -(-size // parts)
        length = tile + halo * min(parts - 1, 2)
        fits = parts == 1 or (length < size and (parts - 1) * tile < size)
        accepted = f"fewer crops of {size} pixels, or a smaller halo than {halo},"
        require("grid", tuple(grid), fits, accepted)
        starts = [min(i * tile, size - tile) - halo for i in range(parts)]
        length = min(length, size)
        axes.append([(min(max(0, start), size - length), length) for start in starts])
    return [View(i, j, h, w) for i, h in axes[0] for j, w in axes[1]]


def plan_views(
    f_conv: Callable[[PyTree, jax.Array], jax.Array],
    variables: PyTree,
    image_shape: tuple[int, int, int],
    data: Sequence[View],
    parity: Sequence[View],
    size: tuple[int, int],
) -> ViewPlan:
    """Plans the views of images. No receptive field is needed: whatever `f_conv` pools,
    gates or attends to inside, it does so of its view alone.

    Args:
      f_conv: `(variables, [B, H, W, C]) -> [B, M*, M'*, D]`, which runs on images of
        the size of a view, too.
      variables: arrays or shapes (`jax.ShapeDtypeStruct`).
      image_shape: `(H, W, C)`.
      data: the views that together cover the image.
      parity: the others.
      size: `(h, w)` of a view; larger parts of the image are made smaller.

    Raises:
      ValueError: the views do not cover the image, or `f_conv` fails for their size or
        gives other channels.
    """
    covered = np.zeros(image_shape[:2], bool)
    for view in data:
        covered[view.top : view.top + view.height, view.left :][:, : view.width] = True
    texts = [*map(text_of, data)]
    require("views", texts, bool(covered.all()), "data views that cover the image")
    outputs = []
    for shape in (image_shape, (*size, image_shape[-1])):
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        try:
            outputs.append(jax.eval_shape(f_conv, variables, image).shape[1:])
        except Exception as error:  # a function of the user's raises anything
            raise ValueError(
                f"f_conv: fails for images {shape}: take larger views "
                f"({first_line(error)})"
            ) from error
    whole, output = outputs
    fits = len(output) == 3 and output[-1] == whole[-1] and min(output) > 0
    accepted = f"(M, M', {whole[-1]}), as of the whole image {list(whole)}, or a larger"
    require("f_conv", f"features {list(output)} of a view", fits, f"{accepted} view")
    views = (*data, *parity)
    return ViewPlan(image_shape, views, len(parity), size, output, whole)


def take_views(plan: ViewPlan, images: jax.Array) -> jax.Array:
    """Takes all views of images.

    Args:
      plan: from `plan_views`.
      images: `[B, H, W, C]`, as the network takes them.

    Returns:
      `[n, B, h, w, C]`, of the same dtype.

    Raises:
      ValueError: the images do not have the plan's shape.
    """
    require_shape("images", images, ("B", *plan.image_shape))
    return jnp.stack([_take(plan, view, images) for view in plan.views])


def _take(plan: ViewPlan, view: View, images: jax.Array) -> jax.Array:
    bottom, right = view.top + view.height, view.left + view.width
    x = images[:, view.top : bottom, view.left : right]
    if (view.height, view.width) != plan.size:
        shape = (len(x), *plan.size, x.shape[-1])
        x = jax.image.resize(x.astype(jnp.float32), shape, "linear", antialias=True)
        if plan.mean is not None and plan.std is not None:
            mean, std = jnp.array([plan.mean, plan.std], jnp.float32)[
                :, None, None, None
            ]
            pixels = jnp.floor((x * std + mean) * LEVELS + HALF)
            x = (jnp.clip(pixels, 0, LEVELS) / LEVELS - mean) / std
    return (x[:, :, ::-1] if view.mirrored else x).astype(images.dtype)
