"""The response to a request: classes with their confidence, and what they come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from coded_jax.codes.quorum import held
from coded_jax.evaluation import confidence
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service.engine import Inference


class Response(NamedTuple):
    """The response to one request.

    Of a request that was divided, a worker was used, a piece decoded or missing, if it
    was so for any of its parts, and the phases are the longest ones.

    Attributes:
      logits: float32 `[B, ..., classes]`, what the head gives: values where answers
        are values, for which the next three are empty.
      classes: int32 `[B]`, or `[B, H', W']` where answers are images.
      probabilities: float32 `[B, ..., classes]`, calibrated, see `confidence`.
      confidence: float32 as the classes, their probabilities.
      used: for each coded stage, the workers whose results were used, by number.
      arrived: for each coded stage, the pieces that these results are of.
      decoded: for each coded stage, the data pieces that a decoder reconstructed; of a
        systematic code, those that had not arrived.
      degraded: whether some stage was decoded from fewer results than its code needs.
      seconds: duration of the phases `queue`, `encode`, `wait` (for the workers) and
        `decode` (with the head), and `total`.
      checked: whether the results of every stage were compared with each other, and
        agree.
      wrong: workers whose results were left out, since the others contradict them.
    """

    logits: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    confidence: np.ndarray
    used: tuple[tuple[int, ...], ...]
    arrived: tuple[tuple[int, ...], ...]
    decoded: tuple[tuple[int, ...], ...]
    degraded: bool
    seconds: dict[str, float]
    checked: bool = False
    wrong: tuple[int, ...] = ()


ARRAYS = ("logits", "classes", "probabilities", "confidence")
"""Fields with one entry for each image."""


def respond(model: CodedModel, inference: Inference) -> Response:
    """Returns calibrated probabilities, or values, and the results they come from."""
    pipeline, available = model.pipeline, inference.available
    # On the host: by JAX, ten numbers would take some milliseconds.
    logits = np.asarray(inference.logits)
    probabilities = np.empty((0, logits.shape[-1]), logits.dtype)
    if not model.values:
        temperatures = confidence.temperatures(
            model.results["confidence"], pipeline, available, logits.shape
        )
        probabilities = softmax(logits / temperatures, axis=-1)
    arrived = tuple(tuple(np.flatnonzero(mask).tolist()) for mask in available)
    whole = [
        held(stage.code.quorum, pipeline.k, pieces) if stage.code.systematic else ()
        for stage, pieces in zip(pipeline.stages, arrived, strict=True)
    ]
    return Response(
        logits=logits,
        classes=probabilities.argmax(-1).astype(np.int32),
        probabilities=probabilities,
        confidence=probabilities.max(-1),
        used=inference.used,
        arrived=arrived,
        decoded=tuple(tuple(sorted({*range(pipeline.k)} - {*own})) for own in whole),
        degraded=inference.degraded,
        seconds=inference.seconds,
        checked=inference.checked,
        wrong=inference.wrong,
    )


def rows(response: Response, start: int, stop: int) -> Response:
    """Returns the response to some of the images."""
    return response._replace(
        **{name: getattr(response, name)[start:stop] for name in ARRAYS}
    )


def joined(responses: Sequence[Response]) -> Response:
    """Returns the response to a request from those to its parts, in their order."""
    if len(responses) == 1:
        return responses[0]
    of = Response(*map(list, zip(*responses, strict=True)))  # each field of all parts

    def stages(name: str, combine: Callable[..., set]) -> tuple[tuple[int, ...], ...]:
        of_parts = zip(*getattr(of, name), strict=True)
        return tuple(tuple(sorted(combine(*map(set, stage)))) for stage in of_parts)

    return Response(
        **{name: np.concatenate(getattr(of, name)) for name in ARRAYS},
        used=stages("used", set.union),
        arrived=stages("arrived", set.intersection),
        decoded=stages("decoded", set.union),
        degraded=any(of.degraded),
        seconds={name: max(s[name] for s in of.seconds) for name in of.seconds[0]},
        checked=all(of.checked),
        wrong=tuple(sorted(set().union(*of.wrong))),
    )
