"""Straggler models: distributions of latencies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require
from coded_jax.settings import Accepted, at_least, between, more_than


class Distribution(Protocol):
    """A distribution of latencies; a pytree of its parameters, so that a program is
    compiled for its kind, and serves all its parameters."""

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draws independently, float32 `shape`, in seconds."""
        ...


class Constant(NamedTuple):
    """A latency that is always `seconds`."""

    seconds: float

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.full(shape, self.seconds, jnp.float32)


class ShiftedExponential(NamedTuple):
    """A `shift` plus an exponential time of that `mean` (Lee et al. 2018)."""

    shift: float
    mean: float

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.shift + self.mean * _exponential(key, shape)


class Pareto(NamedTuple):
    """A heavy tail, `P(X > x) = (scale / x)^shape` for `x >= scale`; without a mean if
    `shape <= 1`."""

    scale: float
    shape: float

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.scale * jnp.exp(_exponential(key, shape) / self.shape)


class LogNormal(NamedTuple):
    """A latency whose logarithm is normal: mean `log(median)`, deviation `sigma`."""

    median: float
    sigma: float

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.median * jnp.exp(self.sigma * jax.random.normal(key, shape))


class Bernoulli(NamedTuple):
    """A sleep or a pause: `seconds` with that `probability`, else nothing."""

    probability: float
    seconds: float

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        drawn = jax.random.bernoulli(key, jnp.float32(self.probability), shape)
        return jnp.where(drawn, jnp.float32(self.seconds), 0)


@dataclasses.dataclass(frozen=True)
class Trace:
    """Measured latencies in seconds, one or more, drawn with replacement."""

    values: tuple[float, ...]

    @classmethod
    def read(cls, path: str | Path) -> Trace:
        """Reads a text file with one latency in each line; blank lines, and what
        follows a `#`, are skipped.

        Raises:
          OSError: there is no such file.
          ValueError: there is no latency in it; or a line is none.
        """
        lines = Path(path).read_text().splitlines()
        texts = filter(None, (line.partition("#")[0].strip() for line in lines))
        values = [_number(str(path), text, ACCEPTED["seconds"]) for text in texts]
        require("path", str(path), len(values) > 0, "a file of one latency or more")
        return cls(tuple(values))

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        values = jnp.asarray(self.values, jnp.float32)
        return values[jax.random.randint(key, shape, 0, len(values))]


# One array, where a named tuple would have a leaf for each of the values.
jax.tree_util.register_pytree_node(
    Trace,
    lambda trace: ((np.asarray(trace.values, np.float32),), None),
    lambda _, leaves: Trace(*leaves),
)

DISTRIBUTIONS: dict[str, Any] = {
    "constant": Constant,
    "shifted_exponential": ShiftedExponential,
    "pareto": Pareto,
    "lognormal": LogNormal,
    "bernoulli": Bernoulli,
    "trace": Trace,
}
"""Distributions by their names in flags."""

ACCEPTED: dict[str, Accepted] = {
    **dict.fromkeys(("seconds", "shift"), at_least(0)),
    **dict.fromkeys(("mean", "scale", "shape", "median"), more_than(0)),
    "sigma": between(0, 10),
    "probability": between(0, 1),
}
"""Values of their parameters that a flag may have."""


def make_distribution(name: str, parameters: Sequence[str]) -> Distribution:
    """Returns the distribution that flags describe, as `pareto` and `["0.01", "2.5"]`.

    Args:
      name: one of `DISTRIBUTIONS`.
      parameters: in their order; the path of a file for `trace`, see `Trace.read`.

    Raises:
      ValueError: its parameters are others, or one is out of range.
    """
    is_trace = name == "trace"
    fields = ("the path",) if is_trace else DISTRIBUTIONS[name]._fields
    fits = len(parameters) == len(fields)
    require("parameters", [*parameters], fits, f"{' and '.join(fields)} of {name}")
    if is_trace:
        return Trace.read(parameters[0])
    pairs = zip(fields, parameters, strict=True)
    return DISTRIBUTIONS[name](*(_number(x, text, ACCEPTED[x]) for x, text in pairs))


def _number(name: str, text: str, accepted: Accepted) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan  # which is in no range
    require(name, text, accepted.holds(number), accepted.text)
    return number


def _exponential(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws exponential times of mean 1, float32 `shape`, from 31 random bits each: the
    23 of `jax.random.exponential` leave few values to the longest of a million."""
    bits = (jax.random.bits(key, shape, jnp.uint32) >> 1).astype(jnp.int32)
    return -jnp.log((bits.astype(jnp.float32) + 0.5) * 2.0**-31)
