"""Straggler models: distributions of latencies, and their order statistics.

The first k of n results are complete at the k-th smallest of n latencies. Where all are
drawn alike and independently, the mean of that has a closed form, or nearly one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
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

    def order_mean(self, k: int, n: int) -> float:
        """Returns `order_statistic_mean`, which checks its arguments."""
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


def order_statistic_mean(distribution: Distribution, k: int, n: int) -> float:
    """Returns the expected k-th smallest of n independent draws, in seconds; infinite
    where there is no mean, as of a `Pareto` with a heavy tail.

    Raises:
      ValueError: `k` is not in `1..n`.
    """
    require("k", k, 1 <= k <= n, f"1..{n}")
    return distribution.order_mean(k, n)


@pytree
@dataclasses.dataclass(frozen=True)
class Constant:
    """A latency that is always `seconds`."""

    seconds: float

    def __post_init__(self) -> None:
        require("seconds", self.seconds, 0 <= self.seconds < math.inf, "0 or more")

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.full(shape, self.seconds, jnp.float32)

    def order_mean(self, k: int, n: int) -> float:
        return self.seconds


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

    def order_mean(self, k: int, n: int) -> float:
        """Returns `shift + mean (H_n - H_(n-k))`: while i of n have not arrived, the
        next one is expected after `mean / i` (Renyi 1953)."""
        return self.shift + self.mean * sum(1 / i for i in range(n - k + 1, n + 1))


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

    def order_mean(self, k: int, n: int) -> float:
        """Returns `scale` times a moment of a beta distribution.

        The k-th smallest is `scale V^(-1/shape)`, with V the k-th largest of n
        uniforms, which is `Beta(n-k+1, k)` (David and Nagaraja 2003): its moment is
        `G(n+1) G(n-k+1-1/shape) / G(n-k+1) / G(n+1-1/shape)`, with G the gamma
        function, and infinite unless `shape (n-k+1) > 1`."""
        rest, power = n - k + 1, 1 / self.shape
        if rest <= power:
            return math.inf
        logarithm = math.lgamma(n + 1) - math.lgamma(n + 1 - power)
        logarithm += math.lgamma(rest - power) - math.lgamma(rest)
        return self.scale * math.exp(logarithm)


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

    def order_mean(self, k: int, n: int) -> float:
        """Returns the integral of `e^(sigma z)` times the density of the k-th smallest
        of n standard normals, `k C(n, k) F^(k-1) (1-F)^(n-k) F'`, by the trapezoidal
        rule, exact to rounding for a function that falls off like a normal density."""
        # e^(sigma z) moves the weight of the largest up, by sigma at most.
        z, step = np.linspace(-12, 12 + self.sigma, 4001, retstep=True)
        erfc = np.vectorize(math.erfc)
        below, above = erfc(-z / math.sqrt(2)) / 2, erfc(z / math.sqrt(2)) / 2
        density = np.exp(self.sigma * z - z**2 / 2) / math.sqrt(2 * math.pi)
        density *= k * math.comb(n, k) * below ** (k - 1) * above ** (n - k)
        return float(self.median * step * density.sum())


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

    def order_mean(self, k: int, n: int) -> float:
        """Returns `seconds P(fewer than k of n are on time)`."""
        return self.seconds * (1 - float(_at_least(k, n, 1 - self.probability)))


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
            if text and not 0 <= _number(text) < math.inf:
                raise ValueError(f"{path} line {i}: {text!r} given, seconds accepted")
        return cls(tuple(_number(text) for text in texts if text))

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        values = jnp.asarray(self.values, jnp.float32)
        return values[jax.random.randint(key, shape, 0, len(values))]

    def order_mean(self, k: int, n: int) -> float:
        """Returns `sum_v v P(the k-th smallest is v)`: it is at most v if k or more of
        n are, each with the share of the trace that is."""
        ordered = np.sort(self.values)
        shares = np.arange(len(ordered) + 1) / len(ordered)
        return float(ordered @ np.diff(_at_least(k, n, shares)))


DISTRIBUTIONS: dict[str, Callable[..., Distribution]] = {
    "constant": Constant,
    "shifted_exponential": ShiftedExponential,
    "pareto": Pareto,
    "lognormal": LogNormal,
    "bernoulli": Bernoulli,
    "trace": Trace.read,
}
"""Functions from the fields of a distribution to it; of a trace, from the path of its
file."""


def make_distribution(name: str, parameters: Sequence[str]) -> Distribution:
    """Returns the distribution that flags describe, as `pareto` and `["0.01", "2.5"]`.

    Raises:
      ValueError: there is none of that name, or its parameters are others.
    """
    accepted_names = f"one of {list(DISTRIBUTIONS)}"
    require("name", name, name in DISTRIBUTIONS, accepted_names)
    kind: Any = DISTRIBUTIONS[name]
    accepted, values = ["path"], list(parameters)
    if kind != Trace.read:
        accepted = [field.name for field in dataclasses.fields(kind)]
        values = [_number(text) for text in parameters]
    if len(values) != len(accepted) or any(value != value for value in values):
        fields = " and ".join(accepted)
        raise ValueError(
            f"parameters: {list(parameters)} given for {name}, {fields} accepted"
        )
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


def _at_least(k: int, n: int, share: Any) -> Any:
    """Returns the probability of k or more successes in n trials with that `share`."""
    return sum(
        math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k, n + 1)
    )
