"""Straggler models: distributions of latencies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.checks import require


class Distribution(Protocol):
    """A distribution of latencies; a pytree of its parameters, so that a program is
    compiled for its kind, and serves all its parameters."""

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draws independently, float32 `shape`, in seconds."""
        ...


def pytree(kind: type) -> type:
    """Registers a dataclass as a pytree whose leaves are its fields."""
    names = [field.name for field in dataclasses.fields(kind)]

    def unflatten(_: None, values: Sequence[Any]) -> Any:
        # Without the checks: in a program the values are not known.
        made = object.__new__(kind)
        for name, value in zip(names, values, strict=True):
            object.__setattr__(made, name, value)
        return made

    def flatten(instance: Any) -> tuple[tuple, None]:
        values = (getattr(instance, name) for name in names)
        return tuple(np.asarray(value, np.float32) for value in values), None

    jax.tree_util.register_pytree_node(kind, flatten, unflatten)
    return kind


@pytree
@dataclasses.dataclass(frozen=True)
class Constant:
    """A latency that is always `seconds`."""

    seconds: float

    def __post_init__(self) -> None:
        require("seconds", self.seconds, 0 <= self.seconds < math.inf, "0 or more")

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.full(shape, self.seconds, jnp.float32)


@pytree
@dataclasses.dataclass(frozen=True)
class ShiftedExponential:
    """A `shift` plus an exponential time of that `mean` (Lee et al. 2018)."""

    shift: float
    mean: float

    def __post_init__(self) -> None:
        require("shift", self.shift, 0 <= self.shift < math.inf, "0 or more")
        require("mean", self.mean, 0 < self.mean < math.inf, "more than 0")

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.shift + self.mean * _exponential(key, shape)


@pytree
@dataclasses.dataclass(frozen=True)
class Pareto:
    """A heavy tail, `P(X > x) = (scale / x)^shape` for `x >= scale`; without a mean if
    `shape <= 1`."""

    scale: float
    shape: float

    def __post_init__(self) -> None:
        for name in ("scale", "shape"):
            value = getattr(self, name)
            require(name, value, 0 < value < math.inf, "more than 0")

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.scale * jnp.exp(_exponential(key, shape) / self.shape)


@pytree
@dataclasses.dataclass(frozen=True)
class LogNormal:
    """A latency whose logarithm is normal: mean `log(median)`, deviation `sigma`."""

    median: float
    sigma: float

    def __post_init__(self) -> None:
        require("median", self.median, 0 < self.median < math.inf, "more than 0")
        require("sigma", self.sigma, 0 <= self.sigma <= 10, "0..10")

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.median * jnp.exp(self.sigma * jax.random.normal(key, shape))


@pytree
@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """A sleep or a pause: `seconds` with that `probability`, else nothing."""

    probability: float
    seconds: float

    def __post_init__(self) -> None:
        require("probability", self.probability, 0 <= self.probability <= 1, "0..1")
        require("seconds", self.seconds, 0 <= self.seconds < math.inf, "0 or more")

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        drawn = jax.random.bernoulli(key, jnp.float32(self.probability), shape)
        return jnp.where(drawn, jnp.float32(self.seconds), 0)


@pytree
@dataclasses.dataclass(frozen=True)
class Trace:
    """Measured latencies in seconds, drawn with replacement."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        # The dataclass is frozen, but not yet; a list would have no hash.
        object.__setattr__(self, "values", tuple(map(float, self.values)))
        wrong = [value for value in self.values if not 0 <= value < math.inf]
        fits = len(self.values) > 0 and not wrong
        require("values", wrong[:1], fits, "one or more, of 0 or more,")

    @classmethod
    def read(cls, path: str | Path) -> Trace:
        """Reads a text file with one latency in each line; blank lines, and what
        follows a `#`, are skipped.

        Raises:
          ValueError: there is no such file, or a line, which is named, is no latency.
        """
        try:
            lines = Path(path).read_text().splitlines()
        except (OSError, UnicodeError) as error:
            raise ValueError(f"path: {path} given, a text file accepted") from error
        texts = [line.partition("#")[0].strip() for line in lines]
        for i, text in enumerate(texts, 1):
            fits = not text or 0 <= _number(text) < math.inf
            require(f"{path} line {i}", text, fits, "seconds")
        return cls(tuple(_number(text) for text in texts if text))

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        values = jnp.asarray(self.values, jnp.float32)
        return values[jax.random.randint(key, shape, 0, len(values))]


DISTRIBUTIONS: dict[str, type] = {
    "constant": Constant,
    "shifted_exponential": ShiftedExponential,
    "pareto": Pareto,
    "lognormal": LogNormal,
    "bernoulli": Bernoulli,
    "trace": Trace,
}
"""Distributions by their names in flags."""


def make_distribution(name: str, parameters: Sequence[str]) -> Distribution:
    """Returns the distribution that flags describe, as `pareto` and `["0.01", "2.5"]`.

    Raises:
      ValueError: there is none of that name, or its parameters are others.
    """
    require("name", name, name in DISTRIBUTIONS, f"one of {list(DISTRIBUTIONS)}")
    if name == "trace":
        require("parameters", parameters, len(parameters) == 1, "the path of a file")
        return Trace.read(parameters[0])
    kind: Any = DISTRIBUTIONS[name]
    fields = [field.name for field in dataclasses.fields(kind)]
    values = [_number(text) for text in parameters]
    fits = len(values) == len(fields) and not any(map(math.isnan, values))
    require("parameters", list(parameters), fits, f"{' and '.join(fields)} of {name}")
    return kind(*values)


def _number(text: str) -> float:
    """Reads a number; NaN, which is in no range, where there is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _exponential(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws exponential times of mean 1, float32 `shape`, from 31 random bits each: the
    23 of `jax.random.exponential` leave few values to the longest of a million."""
    bits = (jax.random.bits(key, shape, jnp.uint32) >> 1).astype(jnp.int32)
    return -jnp.log((bits.astype(jnp.float32) + 0.5) * 2.0**-31)
