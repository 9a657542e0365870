"""Engines: from the images of a request to logits, by a deadline."""

from __future__ import annotations

import abc
import threading
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import numpy as np

from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.cluster_supervisor import Supervisor
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

    logits: jax.Array | np.ndarray
    available: np.ndarray
    used: tuple[tuple[int, ...], ...]
    degraded: bool
    seconds: dict[str, float]
    checked: bool = False
    wrong: tuple[int, ...] = ()


class Engine(abc.ABC):
    """Computes requests, on workers or, without a pool, by one program.

    Args:
      model: the coded inference.
      pool: the workers.
      supervisor: of the cluster that they live on, if they do.
    """

    def __init__(
        self,
        model: CodedModel,
        pool: Pool | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.model, self.pool, self.supervisor = model, pool, supervisor
        self._closed = threading.Event()

    @abc.abstractmethod
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
          WrongResults: they contradict each other.
          Closed: by `close`, meanwhile.
        """

    @abc.abstractmethod
    def warm_up(self, images: Any) -> None:
        """Compiles all programs that a batch of this size needs.

        Raises:
          RuntimeError: a worker is not up, or cannot compute.
        """

    @property
    def restarts(self) -> int:
        """Number of times that the cluster was started anew, or joined again."""
        return self.supervisor.restarts if self.supervisor else 0

    def obstacle(self) -> str | None:
        """Returns why no request can be answered at the moment; None if they can."""
        if self._closed.is_set():
            return "the service is closed"
        return self.supervisor.obstacle() if self.supervisor else None

    def failure(self) -> str | None:
        """Returns why no request will be answered ever again: the cluster has been
        given up; None if it has not, since single workers always come back."""
        return self.supervisor.failure() if self.supervisor else None

    def close(self) -> None:
        """Ends requests in flight with `Closed`, and all workers."""
        self._closed.set()
        if self.pool is not None:
            self.pool.close()
