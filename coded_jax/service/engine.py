"""First k of n: one request, from images to logits, on workers that may be lost.

In every coded stage all pieces are sent out, results are taken as they arrive, and the
stage is decoded as soon as they suffice: at once where all data pieces arrived, or else
from any k results. Stragglers are not waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from coded_jax.codes import quorum
from coded_jax.inference.pipeline import has_answer
from coded_jax.inference.stages import Sent
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service import parts
from coded_jax.service.byzantine.detection import Check
from coded_jax.service.cluster_supervisor import Supervisor
from coded_jax.service.config import DEFAULTS, ServeConfig
from coded_jax.service.gathering import Gathering, Judge, NotEnoughResults
from coded_jax.service.pool import Call, Pool
from coded_jax.types import PyTree

NEVER = float("inf")


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


class Engine:
    """Computes requests from the first results that suffice.

    Args:
      model: the coded inference.
      pool: its n workers, and spares.
      config: of which `shortfall`, `hedge_after` and `check_wait` are looked at.
        Without any result there is no degraded response.
      check: of the results; they are believed if None.
      supervisor: of the cluster that the workers live on, if they do.
    """

    def __init__(
        self,
        model: CodedModel,
        pool: Pool,
        config: ServeConfig = DEFAULTS,
        check: Check | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.model, self.pool, self.supervisor = model, pool, supervisor
        self._closed = threading.Event()
        # On one device: the pool spreads the pieces.
        self._pipeline = model.pipeline._replace(mesh=None)
        self._front = jax.local_devices()[0]
        self._variables: tuple[PyTree, PyTree] = jax.device_put(
            (model.frozen, model.params), self._front
        )
        self._pieces = parts.pieces(self._pipeline)
        # Of views any results make an answer.
        self._degrade = config.shortfall == "degrade" or not model.pipeline.exact
        hedge_after = NEVER if config.hedge_after is None else config.hedge_after
        self._hedges = [hedge_after] * len(self._pieces)  # of each stage
        self._check, self._check_wait = check, config.check_wait or 0.0
        self._decoding = [0.0] * len(self._pieces)  # seconds, for each stage

    def infer(
        self, number: int, images: Any, end: float, without: Collection[int] = ()
    ) -> Inference:
        """Computes a request.

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
        pipeline, stages = self._pipeline, len(self._pieces)
        seconds = {"encode": 0.0, "wait": 0.0, "decode": 0.0}
        available = np.zeros((stages, pipeline.n, 1), bool)
        gatherings, order = list[Gathering](), [*range(pipeline.n)]
        places = range(len(self.pool))
        unused = [place for place in places if self.pool.holder(place) in without]
        begun = time.monotonic()
        x = self._encode(images)
        seconds["encode"] = time.monotonic() - begun
        for stage in range(stages):
            begun = time.monotonic()
            limit = end - sum(self._decoding[stage:])  # what the decoders need
            if self._degrade:  # the stages after it are to wait as long
                limit = begun + (limit - begun) / (stages - stage)
            pairs = zip(self._pieces[stage], x.queries, strict=True)
            gathering = Gathering(
                self.pool,
                [Call(piece, query, number, stage) for piece, query in pairs],
                order,
                pipeline.stages[stage].code,
                k=pipeline.k,
                limit=limit,
                closed=self._closed.is_set,
                degrade=self._degrade,
                hedge_after=self._hedges[stage],
                without=unused,
                judge=self._judge(stage, x),
                check_wait=self._check_wait,
            )
            gathering.run()
            gatherings.append(gathering)
            available[stage, list(gathering.shares)] = True
            if pipeline.coding.parity_moves:
                held = {result.place for result in gathering.shares.values()}
                order = sorted(range(pipeline.n), key=lambda place: place not in held)
            seconds["wait"] += time.monotonic() - begun

            begun = time.monotonic()
            arrived = {i: result.share for i, result in gathering.shares.items()}
            x = self._decode(stage, arrived, x, available)
            seconds["decode"] += time.monotonic() - begun
        degraded = not all(own.enough for own in gatherings)
        if degraded and not np.all(has_answer(pipeline, jnp.asarray(available))):
            raise NotEnoughResults("the code has no answer without all data pieces")
        return Inference(
            x,
            available,
            used=tuple(own.workers for own in gatherings),
            degraded=degraded,
            seconds=seconds,
            checked=all(own.checked for own in gatherings),
            wrong=tuple(sorted({i for own in gatherings for i in own.wrong})),
        )

    def warm_up(self, batch: int) -> None:
        """Compiles all programs that a batch of this size needs, on every worker.

        Raises:
          ValueError: requests cannot have so many images.
          RuntimeError: a worker is not up, or cannot compute.
        """
        pipeline, shape = self._pipeline, self.model.image_shape
        images = np.zeros((batch, *shape), pipeline.image_dtype)
        self.model.check_images(images)
        self.pool.wait_until_ready()
        available = np.ones((len(self._pieces), pipeline.n, 1), bool)
        x = parts.encode_images(pipeline, *self._variables, images)
        for stage, pieces in enumerate(self._pieces):
            rule = pipeline.stages[stage].code.quorum
            sent = quorum.sent(rule, pipeline.k, pipeline.n)
            self.pool.compute_everywhere([Call(pieces[i], x.queries[i]) for i in sent])
            for _ in range(2):  # the first time with compilation
                begun = time.monotonic()
                if judge := self._judge(stage, x):
                    judge.contradict({})
                    judge.culprit({})
                decoded = self._decode(stage, {}, x, available)
            self._decoding[stage] = max(self._decoding[stage], time.monotonic() - begun)
            x = decoded
        has_answer(pipeline, jnp.asarray(available))

    def obstacle(self) -> str | None:
        """Returns why no request can be answered at the moment; None if they can."""
        if self._closed.is_set():
            return "the service is closed"
        if self.supervisor and (obstacle := self.supervisor.obstacle()):
            return obstacle
        up, pipeline = self.pool.up, self._pipeline
        for stage in pipeline.stages:
            if self._degrade and stage.code.traits.answers_always and up:
                continue
            if not quorum.suffices(stage.code.quorum, pipeline.k, up):
                needed = quorum.in_words(stage.code.quorum, pipeline.k)
                return f"{len(up)} of {pipeline.n} workers are up, and {needed} needed"
        return None

    def close(self) -> None:
        """Ends requests in flight with `Closed`, and all workers."""
        self._closed.set()
        self.pool.close()

    def _encode(self, images: Any) -> Sent:
        """Computes the queries of the first coded stage."""
        return jax.block_until_ready(
            parts.encode_images(self._pipeline, *self._variables, images)
        )

    def _blank(self, stage: int, begun: Sent) -> jax.Array:
        """Returns zeros in the place of a share."""
        shape = (len(begun.queries[0]), *self._pieces[stage][0].share)
        return jax.device_put(np.zeros(shape, self._pipeline.dtype), self._front)

    def _judge(self, stage: int, begun: Sent) -> Judge | None:
        """Returns the judge of a stage's results; None where they are believed."""
        if self._check is None:
            return None
        return Judge(
            self._pipeline.stages[stage],
            self._check.stages[stage],
            self._variables[1][stage],
            kept=begun.kept,
            blank=self._blank(stage, begun),
        )

    def _decode(
        self, stage: int, shares: dict[int, Any], begun: Sent, available: np.ndarray
    ) -> Any:
        """Computes the queries of the next stage, or logits after the last one."""
        blank = self._blank(stage, begun)
        slots = tuple(shares.get(i, blank) for i in range(self._pipeline.n))
        decoded = parts.decode_stage(
            self._pipeline,
            stage,
            *self._variables,
            shares=jax.device_put(slots, self._front),
            available=available,
            kept=begun.kept,
        )
        return jax.block_until_ready(decoded)
