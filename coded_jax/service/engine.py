"""The protocol of engines: from the images of a request to logits, by a deadline."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.byzantine.check import Check
from coded_jax.service.config import ServeConfig
from coded_jax.service.pool import Pool


class NotEnoughResults(RuntimeError):
    """Fewer results arrived by the deadline than the code needs."""


class WrongResults(RuntimeError):
    """The results contradict each other, and none is found to blame."""


class Closed(RuntimeError):
    """The service was closed before the response."""


class Inference(NamedTuple):
    """Logits of one request, and the results they were computed from.

    Attributes:
      logits: float32 `[B, classes]`.
      available: bool `[S, n, 1]`, the results that each coded stage was decoded from.
      used: for each coded stage, the workers that these results came from.
      degraded: whether some stage was decoded from fewer results than its code needs.
      seconds: duration of the phases `encode`, `wait` and `decode`.
      checked: whether the results of every stage were compared with each other.
      wrong: workers whose results were left out, since the others contradict them.
    """

    logits: jax.Array
    available: np.ndarray
    used: tuple[tuple[int, ...], ...]
    degraded: bool
    seconds: dict[str, float]
    checked: bool = False
    wrong: tuple[int, ...] = ()


class Engine(Protocol):
    """Computes requests."""

    @property
    def pool(self) -> Pool | None:
        """The workers; None where all devices run one program."""
        ...

    @property
    def restarts(self) -> int:
        """Number of times that what its workers live on was started anew."""
        ...

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Inference:
        """Computes request `number`.

        Args:
          number: of the request, from 0.
          images: `[B, H, W, C]` of the pipeline's `image_dtype`.
          end: the deadline, on the clock of `time.monotonic`.
          without: workers whose results are not used.

        Raises:
          NotEnoughResults: too few results arrived by the deadline.
          Closed: by `close`, meanwhile.
        """
        ...

    def warm_up(self, images: Any) -> None:
        """Compiles all programs that a batch of this size needs.

        Raises:
          RuntimeError: a worker is not up, or cannot compute.
        """
        ...

    def obstacle(self) -> str | None:
        """Returns why no request can be answered at the moment; None if they can."""
        ...

    def failure(self) -> str | None:
        """Returns why no request will be answered ever again; None if they may be."""
        ...

    def close(self) -> None:
        """Ends requests in flight with `Closed`, and all workers."""
        ...


OF_POOLS = frozenset(
    {"shortfall", "hedge_after", "patience", "spares", "strikes", "check_wait"}
)
"""Settings of a pool of workers."""
OF_CLUSTERS = frozenset({"address", "reconnect_for"})


class EngineKind(NamedTuple):
    """An entry of the registry of engines.

    Attributes:
      start: `(model, config, check) -> engine`; results are checked where there is a
        check.
      ignores: settings of `ServeConfig` that mean nothing to it.
      spread: whether the model is loaded onto all devices, rather than onto one.
      pooled: whether it has a pool of workers, rather than one program.
      processes: whether its workers are processes, which can be killed and frozen.
    """

    start: Callable[[CodedModel, ServeConfig, Check | None], Engine]
    ignores: frozenset[str]
    spread: bool = False
    pooled: bool = True
    processes: bool = False
