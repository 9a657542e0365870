"""Judgement of results that a service gathers, by a calibrated check."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np

from coded_jax.inference.pipeline import Pipeline
from coded_jax.service.byzantine import alarm
from coded_jax.service.byzantine.check import Check
from coded_jax.types import Kept, PyTree


class StageJudge:
    """Compares the results of one coded stage of one request; a `gathering.Judge`.

    Args:
      pipeline: the functions.
      coded: number of the stage, from 0.
      check: of the pipeline's stages.
      params: of the codes.
      kept: what the front end keeps of the request.
      blank: zeros, in the place of results that did not arrive.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        coded: int,
        check: Check,
        params: PyTree,
        kept: Kept,
        blank: jax.Array,
    ) -> None:
        self._pipeline, self._coded, self._kept = pipeline, coded, kept
        self._check, self._own = check.stages[coded], params[coded]
        self._places = np.asarray(self._check.places)
        self._blank = blank

    def can_judge(self, pieces: Collection[int]) -> bool:
        """Returns whether there are more results than needed, to be compared."""
        return self._places[sum(2**piece for piece in pieces)] >= 0

    def contradict(self, shares: Mapping[int, Any]) -> bool:
        """Returns whether, for some image, a share differs from its prediction."""
        return bool(np.any(self._alarm(shares).suspicious))

    def culprit(self, shares: Mapping[int, Any]) -> int | None:
        """Returns the piece that is named for most of the suspicious images."""
        named = alarm.name_culprit(*self._arguments(shares))
        suspicious = self._alarm(shares).suspicious
        piece = alarm.culprit_of_request(suspicious, named)
        return None if piece == alarm.UNNAMED else piece

    def _alarm(self, shares: Mapping[int, Any]) -> alarm.Alarm:
        return alarm.inspect(*self._arguments(shares))

    def _arguments(self, shares: Mapping[int, Any]) -> tuple:
        n = self._pipeline.n
        available = np.array([piece in shares for piece in range(n)])
        slots = tuple(shares.get(piece, self._blank) for piece in range(n))
        # As in the warm-up, or else each pattern of what arrived compiles anew.
        slots = jax.device_put(slots, self._blank.sharding)
        return (
            self._pipeline,
            self._coded,
            self._check,
            self._own,
            slots,
            available,
            self._kept,
        )
