"""The page to look at: its files, and what it asks beside the answers themselves."""

from __future__ import annotations

import asyncio
import base64
import functools
from typing import Any

import jax
import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from coded_jax import data
from coded_jax.checks import require
from coded_jax.inference.stages import CodedStage
from coded_jax.runs.coded_model import CodedModel
from coded_jax.service import parts
from coded_jax.service.service import Service
from coded_jax.service.web import images
from coded_jax.service.web.app import STATIC, Read
from coded_jax.service.web.demo import Demo

ONLY_THIS_HOST = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}
SAMPLES = 10  # images, of as many classes as there are


def routes(
    service: Service, demo: Demo | None, token: bool, read: Read
) -> list[BaseRoute]:
    """Returns the routes of the page, ready to answer.

    `GET /` and `/static/` are its files. `GET /model` says what is served, `POST
    /pieces` makes the pieces of the image in its body, `GET /samples` has some images
    of the test split, and with `demo` there are `GET /demo`, the fault of each worker,
    and `POST /demo/ACTION/WORKER`, see `Demo.act`.

    Args:
      service: responds.
      demo: lets workers fail; None if nobody may.
      token: whether requests are to bear one.
      read: reads the body of a request.
    """
    page = _Page(service, demo, token, read)
    shape, dtype = images.kind_of(service.model)
    pieces(service.model, np.zeros((1, *shape), dtype))  # compiles for the first image
    listed: list[BaseRoute] = [
        Route("/", page.index),
        Route("/model", page.model),
        Route("/pieces", page.pieces, methods=["POST"]),
        Route("/samples", page.samples),
        Mount("/static", StaticFiles(directory=str(STATIC))),
    ]
    if demo is not None:
        act = Route("/demo/{action}/{worker:int}", page.act, methods=["POST"])
        listed += [Route("/demo", page.faults), act]
    return listed


class _Page:
    """The page's routes. Those without `async` run in threads: they may wait."""

    def __init__(
        self, service: Service, demo: Demo | None, token: bool, read: Read
    ) -> None:
        self._service, self._demo, self._read = service, demo, read
        self._token = token
        self._samples = functools.lru_cache(maxsize=1)(samples)

    def index(self, request: Request) -> Response:
        return FileResponse(str(STATIC / "index.html"), headers=ONLY_THIS_HOST)

    def model(self, request: Request) -> Response:
        asked = {"demo": self._demo is not None, "token": self._token}
        return JSONResponse(description(self._service.model) | asked)

    async def pieces(self, request: Request) -> Response:
        body = await self._read(request)
        try:
            return JSONResponse(await asyncio.to_thread(self._pieces, body))
        except ValueError as error:
            unknown = isinstance(error, images.UnsupportedFormat)
            raise HTTPException(415 if unknown else 400, str(error)) from None

    def _pieces(self, body: bytes) -> dict[str, Any]:
        model = self._service.model
        batch = images.decode(body, *images.kind_of(model))
        require("images", f"a batch of {len(batch)}", len(batch) == 1, "1")
        model.check_images(np.repeat(batch, model.pipeline.images_per_input, axis=0))
        return pieces(model, batch)

    def samples(self, request: Request) -> Response:
        model = self._service.model
        config = (model.results or {}).get("config", {})
        some = self._samples(
            config.get("dataset"), config.get("image_size"), model.image_shape
        )
        return JSONResponse({"samples": some})

    def faults(self, request: Request) -> Response:
        assert self._demo is not None
        return JSONResponse({"workers": self._demo.states})

    def act(self, request: Request) -> Response:
        assert self._demo is not None
        try:
            self._demo.act(request.path_params["action"], request.path_params["worker"])
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 404)
        return self.faults(request)


def description(model: CodedModel) -> dict[str, Any]:
    """Returns the description of a model on the page, as `GET /model` has it.

    Returns:
      `base_model` and `dataset`; `k`, `r`, `n` and the number of `stages`;
      `image_shape` and `image_dtype`; `images_per_input`; `classes`, their names or
      numbers, None where answers are values; `dense`, whether they are images;
      `pieces`, what the first stage's are of; and `accuracy`, that of the `base` and
      the mean with 0, 1, ... results `lost`, None where there is none.
    """
    pipeline, results = model.pipeline, model.results or {}
    config, stage = results.get("config", {}), pipeline.stages[0]
    dataset = config.get("dataset")
    lost = results.get("summary", {})
    source = data.DATASETS.get(dataset or "")
    names = [*source.class_names] if source else []
    if len(names) != model.classes:  # without names they are numbered
        names = [*map(str, range(model.classes))]
    shape, dtype = images.kind_of(model)
    return {
        "base_model": config.get("base_model"),
        "dataset": dataset,
        "k": pipeline.k,
        "r": pipeline.r,
        "n": pipeline.n,
        "stages": len(pipeline.stages),
        "image_shape": shape,
        "image_dtype": dtype,
        "images_per_input": pipeline.images_per_input,
        "classes": None if model.values else names,
        "dense": len(model.answer_shape) > 1,
        "pieces": [_place(stage, i, pipeline.k) for i in range(pipeline.n)],
        "accuracy": {
            "base": results.get("base", {}).get("test_accuracy"),
            "lost": [lost[count].get("mean") for count in sorted(lost, key=int)],
        },
    }


def _place(stage: CodedStage, piece: int, k: int) -> dict[str, Any]:
    """Returns the place of a piece in a stage's input: first and last row and column,
    from 0, and their number; None for parity pieces and separate images.
    """
    plan = stage.plan
    if piece >= k or plan.k != k:
        return {"parity": piece >= k, "rows": None, "columns": None}
    row, column = divmod(piece, plan.columns.parts)
    place = lambda axis, part: [
        axis.starts[part],
        axis.starts[part] + axis.window - 1,
        axis.size,
    ]
    rows, columns = place(plan.rows, row), place(plan.columns, column)
    return {"parity": False, "rows": rows, "columns": columns}


def pieces(model: CodedModel, image: np.ndarray) -> dict[str, Any]:
    """Makes pictures of the pieces of the first coded stage.

    Args:
      model: the coded inference.
      image: `[1, H, W, C]` of the pipeline's `image_dtype`; where several images are
        coded together, it stands for all of them.

    Returns:
      `pieces`: for each the `shape` of its picture, `[h, w, 1 or 3]`, its pixels of a
      byte each in base64, and the least and the largest value `range`, which became 0
      and 255. Of more channels than colours have, the mean is shown.
    """
    pipeline = model.pipeline._replace(mesh=None)
    batch = np.repeat(image, pipeline.images_per_input, axis=0)
    sending = parts.encode_images(pipeline, model.frozen, model.params, batch)
    return {"pieces": [_picture(query[0]) for query in jax.device_get(sending.queries)]}


def _picture(query: np.ndarray) -> dict[str, Any]:
    values = np.asarray(query, np.float32)
    if values.shape[-1] not in (1, 3):
        values = values.mean(axis=-1, keepdims=True)
    low, high = float(values.min()), float(values.max())
    grey = np.rint((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    pixels = base64.b64encode(grey.tobytes()).decode()
    return {"shape": grey.shape, "pixels": pixels, "range": [low, high]}


def samples(
    dataset: str | None, image_size: int | None, shape: tuple[int, int, int]
) -> list[dict[str, Any]]:
    """Returns the first test image of each of the first `SAMPLES` classes.

    Args:
      dataset, image_size: of the run.
      shape: `(H, W, C)`, as the model takes them.

    Returns:
      For each its `shape`, its `pixels` of a byte each in base64, and its `label`;
      nothing where the data set is not at hand, all of it would have to be resized, or
      it has other labels than classes.
    """
    source = data.DATASETS.get(dataset or "")
    if source is None or not (image_size is None or source.sized):
        return []
    try:
        test = data.load(dataset or "", image_size=image_size).test
    except (ValueError, ImportError, OSError):
        return []
    fits = test.images.shape[1:] == shape and test.images.dtype == np.uint8
    if test.labels.ndim != 1 or not fits:
        return []
    _, firsts = np.unique(test.labels, return_index=True)
    return [
        {
            "shape": shape,
            "pixels": base64.b64encode(test.images[i].tobytes()).decode(),
            "label": int(test.labels[i]),
        }
        for i in firsts[:SAMPLES]
    ]
