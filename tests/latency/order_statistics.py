"""Expected order statistics of straggler models, in closed form or nearly so."""

import functools
import math

import numpy as np

from coded_jax.latency.stragglers import (
    Bernoulli,
    Constant,
    LogNormal,
    Pareto,
    ShiftedExponential,
    Trace,
)


@functools.singledispatch
def order_statistic_mean(distribution, k, n):
    """Returns the expected k-th smallest of n independent draws, in seconds; infinite
    where there is no mean, as of a `Pareto` with a heavy tail."""
    raise NotImplementedError


@order_statistic_mean.register
def _(distribution: Constant, k, n):
    return distribution.seconds


@order_statistic_mean.register
def _(distribution: ShiftedExponential, k, n):
    """While i of n have not arrived, the next one is expected after `mean / i` (Renyi
    1953): `shift + mean (H_n - H_(n-k))`."""
    harmonic = sum(1 / i for i in range(n - k + 1, n + 1))
    return distribution.shift + distribution.mean * harmonic


@order_statistic_mean.register
def _(distribution: Pareto, k, n):
    """The k-th smallest is `scale V^(-1/shape)`, with V the k-th largest of n uniforms,
    which is `Beta(n-k+1, k)` (David and Nagaraja 2003): its moment is
    `G(n+1) G(n-k+1-1/shape) / G(n-k+1) / G(n+1-1/shape)`, with G the gamma function,
    and infinite unless `shape (n-k+1) > 1`."""
    rest, power = n - k + 1, 1 / distribution.shape
    if rest <= power:
        return math.inf
    logarithm = math.lgamma(n + 1) - math.lgamma(n + 1 - power)
    logarithm += math.lgamma(rest - power) - math.lgamma(rest)
    return distribution.scale * math.exp(logarithm)


@order_statistic_mean.register
def _(distribution: LogNormal, k, n):
    """The integral of `e^(sigma z)` times the density of the k-th smallest of n
    standard normals, `k C(n, k) F^(k-1) (1-F)^(n-k) F'`, by the trapezoidal rule, exact
    to rounding for a function that falls off like a normal density."""
    sigma = distribution.sigma
    # e^(sigma z) moves the weight of the largest up, by sigma at most.
    z, step = np.linspace(-12, 12 + sigma, 4001, retstep=True)
    erfc = np.vectorize(math.erfc)
    below, above = erfc(-z / math.sqrt(2)) / 2, erfc(z / math.sqrt(2)) / 2
    density = np.exp(sigma * z - z**2 / 2) / math.sqrt(2 * math.pi)
    density *= k * math.comb(n, k) * below ** (k - 1) * above ** (n - k)
    return float(distribution.median * step * density.sum())


@order_statistic_mean.register
def _(distribution: Bernoulli, k, n):
    """It is `seconds` if fewer than k of n are on time."""
    on_time = float(at_least(k, n, 1 - distribution.probability))
    return distribution.seconds * (1 - on_time)


@order_statistic_mean.register
def _(distribution: Trace, k, n):
    """It is at most v if k or more of n are, each with the share of the trace that
    is."""
    ordered = np.sort(distribution.values)
    shares = np.arange(len(ordered) + 1) / len(ordered)
    return float(ordered @ np.diff(at_least(k, n, shares)))


def at_least(k, n, share):
    """Returns the probability of k or more successes in n trials with that `share`."""
    return sum(
        math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k, n + 1)
    )
