"""The page to look at: its files, and what it asks beside the answers themselves."""

from __future__ import annotations

import asyncio
import base64
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from coded_jax import data
from coded_jax.inference.pipeline import Pipeline
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service import parts
from coded_jax.service.faults import Fault, Faults, FaultyWorker, inject
from coded_jax.service.pool import Call
from coded_jax.service.service import Service
from coded_jax.service.web import images
from coded_jax.types import ViewPlan

FILES = Path(__file__).parent
POLICY = "Content-Security-Policy"
ONLY_THIS_HOST = {
    POLICY: "default-src 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
SAMPLES = 10  # images, of as many classes as there are
LATE = 1.0  # seconds
RESTART = 3.0  # seconds, about what a process takes on an idle machine

# Routes without `async` run in threads: they may wait.


def file_route(path: str, file: Path, headers: dict[str, str] | None = None) -> Route:
    """Returns a route that answers with a file."""
    return Route(path, lambda request: FileResponse(file, headers=headers))


def model_facts(request: Request) -> Response:
    """Answers with what the page says of the model.

    These are `base_model` and `dataset`; `k`, `r`, `n` and the number of `stages`;
    `image_shape` and `image_dtype`; `images_per_input`; `classes`, their names or
    numbers, None where answers are values; `dense`, whether they are images; `pieces`,
    what the first stage's are of; `accuracy`, that of the `base` and the mean with 0,
    1, ... results `lost`, None where there is none; and whether there is a `demo`, and
    a `token` is asked for.
    """
    model, results = _model(request), _model(request).results or {}
    config, lost = results.get("config", {}), results.get("summary", {})
    pipeline, source = model.pipeline, data.DATASETS.get(config.get("dataset"))
    classes = [*source.class_names] if source else []
    if len(classes) != model.classes:
        classes = [str(i) for i in range(model.classes)]
    facts = {
        "base_model": config.get("base_model"),
        "dataset": config.get("dataset"),
        "k": pipeline.k,
        "r": pipeline.r,
        "n": pipeline.n,
        "stages": len(pipeline.stages),
        "image_shape": model.image_shape,
        "image_dtype": pipeline.image_dtype,
        "images_per_input": pipeline.images_per_input,
        "classes": None if model.values else classes,
        "dense": len(model.answer_shape) > 1,
        "pieces": [_place(pipeline, piece) for piece in range(pipeline.n)],
        "accuracy": {
            "base": results.get("base", {}).get("test_accuracy"),
            "lost": [lost[count].get("mean") for count in sorted(lost, key=int)],
        },
        "demo": request.app.state.demo is not None,
        "token": request.app.state.guarded,
    }
    return JSONResponse(facts)


def _model(request: Request) -> CodedModel:
    return request.app.state.service.model


def _place(pipeline: Pipeline, piece: int) -> dict[str, Any]:
    """Returns the place of a piece in the first stage's input: first and last row and
    column, from 0, and their number; None for parity pieces and separate images.
    """
    place: dict[str, Any] = {"rows": None, "columns": None}
    plan = pipeline.stages[0].plan
    if isinstance(plan, ViewPlan):
        view, (height, width, _) = plan.views[piece], plan.image_shape
        place["rows"] = [view.top, view.top + view.height - 1, height]
        place["columns"] = [view.left, view.left + view.width - 1, width]
    elif piece < pipeline.k == plan.k:
        numbers = divmod(piece, plan.columns.parts)
        for name, axis, i in zip(
            place, (plan.rows, plan.columns), numbers, strict=True
        ):
            place[name] = [axis.starts[i], axis.starts[i] + axis.window - 1, axis.size]
    return {"parity": piece >= pipeline.k, **place}


async def pieces(request: Request) -> Response:
    """Answers with pictures of the pieces of the first image in the body.

    Each has its `shape`, `[h, w, 1 or 3]`, its `pixels` of a byte each in base64, and
    the least and the largest value `range`, which became 0 and 255. Of more channels
    than colours have, the mean is shown.
    """
    model, body = _model(request), await images.read_body(request)

    def encode() -> Response:
        pipeline = model.pipeline._replace(mesh=None)  # as the service has compiled it
        with images.refusals():
            image = images.decode(body, model)
            # Where several are coded together, this one stands for all of them.
            batch = np.repeat(image[:1], pipeline.images_per_input, axis=0)
            model.check_images(batch)
        sent = parts.encode_images(pipeline, model.frozen, model.params, batch)
        queries = jax.device_get(sent.queries)
        return JSONResponse({"pieces": [_picture(query[0]) for query in queries]})

    return await asyncio.to_thread(encode)


def _picture(query: np.ndarray) -> dict[str, Any]:
    values = np.asarray(query, np.float32)
    if values.shape[-1] not in (1, 3):
        values = values.mean(axis=-1, keepdims=True)
    low, high = float(values.min()), float(values.max())
    grey = np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    return {"shape": grey.shape, "pixels": _base64(grey), "range": [low, high]}


def samples(request: Request) -> Response:
    """Answers with the first test image of each of the first `SAMPLES` classes.

    Each has its `shape`, its `pixels` of a byte each in base64, and its `label`; there
    are none where the data set is not at hand, all of it would have to be resized, or
    it has other labels than classes.
    """
    model = _model(request)
    config = (model.results or {}).get("config", {})
    dataset, size = config.get("dataset"), config.get("image_size")
    return JSONResponse({"samples": _samples(dataset, size, model.image_shape)})


@functools.lru_cache(maxsize=1)  # every look at the page asks for the same ones
def _samples(dataset: Any, image_size: Any, shape: tuple) -> list[dict[str, Any]]:
    if dataset not in data.DATASETS:
        return []
    try:
        test = data.load(dataset, image_size=image_size).test
    except (ValueError, ImportError, OSError):
        return []
    same = test.images.shape[1:] == shape and test.images.dtype == np.uint8
    if test.labels.ndim != 1 or not same:
        return []
    _, firsts = np.unique(test.labels, return_index=True)
    chosen = [(test.images[i], int(test.labels[i])) for i in firsts[:SAMPLES]]
    return [{"shape": shape, "pixels": _base64(x), "label": y} for x, y in chosen]


def _base64(pixels: np.ndarray) -> str:
    return base64.b64encode(pixels.tobytes()).decode()


class Always(NamedTuple):
    """Lets a worker meet one fault in every call, but for a warm-up."""

    fault: Fault

    def of_call(self, call: Call, worker: int, n: int) -> Fault:
        """Returns the fault that a worker meets with a call."""
        return Fault() if call.request is None else self.fault


MET = {"slow": Always(Fault(back=LATE)), "corrupt": Always(Fault(kind="noise"))}
"""What workers meet after an action: each result is late, or noise with the moments of
the right one."""


class Demo:
    """Faults of single workers of a service.

    Args:
      service: whose workers meet them. Where it comes to have other ones, these begin
        without faults.
      restart: seconds after which a worker that is no process is back when it has been
        killed.
    """

    def __init__(self, service: Service, restart: float = RESTART) -> None:
        self._service, self._restart = service, restart
        self._workers()

    @property
    def states(self) -> list[str]:
        """The fault of each worker: `"slow"`, `"corrupt"` or `""`."""
        names: dict[Any, str] = {met: name for name, met in MET.items()}
        return [names.get(worker.faults, "") for worker in self._workers()]

    def act(self, action: str, worker: int) -> None:
        """Lets a worker fail, or heals it.

        Args:
          action: `"kill"`, as by SIGKILL; one of `MET`; or `"heal"`, none of these any
            more.
          worker: its number, from 0.

        Raises:
          HTTPException: 404, there is no such action or worker.
        """
        workers = self._workers()
        if action not in ("kill", "heal", *MET) or worker >= len(workers):
            raise HTTPException(404)
        if action == "kill":
            workers[worker].kill(self._restart)
        else:
            workers[worker].faults = MET.get(action, Faults())
        if action == "heal":
            workers[worker].heal()

    def _workers(self) -> list[FaultyWorker]:
        """Returns the present workers, which can meet faults from now on."""
        pool = self._service.engine.pool
        faulty = [own for own in pool.workers if isinstance(own, FaultyWorker)]
        return faulty or inject(pool, Faults())


def faults(request: Request) -> Response:
    """Answers with the fault of each worker."""
    return JSONResponse({"workers": request.app.state.demo.states})


def act(request: Request) -> Response:
    """Lets a worker fail, or heals it, see `Demo.act`."""
    request.app.state.demo.act(**request.path_params)
    return faults(request)


ROUTES = [
    file_route("/", FILES / "static" / "index.html", ONLY_THIS_HOST),
    Route("/model", model_facts),
    Route("/pieces", pieces, methods=["POST"]),
    Route("/samples", samples),
]
DEMO_ROUTES = [
    Route("/demo", faults),
    Route("/demo/{action}/{worker:int}", act, methods=["POST"]),
]
