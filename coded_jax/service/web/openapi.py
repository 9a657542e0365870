"""The description of the front by OpenAPI."""

from __future__ import annotations

import typing
from importlib import metadata
from typing import Any

import numpy as np

from coded_jax.service.response import Response

ERRORS = {
    400: "a wrong request",
    401: "no token, or another one",
    403: "asked by a page of another site",
    408: "the request did not arrive in time",
    409: "a model is being loaded already",
    413: "the body is too large",
    415: "the body is of another format",
    500: "a defect",
    503: "too many requests at once, or not ready; later it may be answered",
    504: "too few results arrived by the deadline",
}


def description(shape: tuple[int, int, int], dtype: str) -> dict[str, Any]:
    """Returns the description by OpenAPI 3.0.

    Args:
      shape: `(H, W, C)` of an image.
      dtype: of its pixels.
    """
    size = ", ".join(map(str, shape))
    formats = ["application/octet-stream", "application/x-npy"]
    formats += ["image/png", "image/jpeg"] if dtype == "uint8" else []
    file = {"schema": {"type": "string", "format": "binary"}}
    deadline = {
        "name": "Deadline",
        "in": "header",
        "description": "seconds that the answer may take",
        "schema": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
    }
    predict = {
        "summary": "Computes the classes of images",
        "description": (
            f"The body is an .npy file of {dtype} [B, {size}] or [{size}]; for uint8 "
            "also a PNG or JPEG file of one image of this size."
        ),
        "parameters": [deadline],
        "requestBody": {"required": True, "content": dict.fromkeys(formats, file)},
        "responses": _responses(
            "the response",
            *(400, 401, 403, 408, 413, 415, 500, 503, 504),
            content={"application/json": _reference("Response")},
        ),
    }
    summary = {"application/json": {"schema": {"type": "object"}}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    probe = {"security": [{}], "responses": _responses("it can", 503)}
    gets = {
        "/summary": {
            "summary": "Returns counts and latencies so far",
            "responses": _responses("as it is now", 401, 403, content=summary),
        },
        "/metrics": {
            "summary": "Returns the same as text for Prometheus",
            "responses": _responses("as it is now", 401, 403, content=text),
        },
        "/healthz": {"summary": "Says whether it can ever answer again", **probe},
        "/readyz": {"summary": "Says whether it can answer now", **probe},
    }
    reload = {
        "summary": "Loads the model anew",
        "responses": _responses("loaded", 401, 403, 409, 500),
    }
    fields = typing.get_type_hints(Response)
    schemas = {
        "Response": {
            "type": "object",
            "properties": {name: _schema(kind) for name, kind in fields.items()},
            "required": [*fields],
        },
        "Error": {
            "type": "object",
            "properties": {"error": {"type": "string"}},
            "required": ["error"],
        },
    }
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "coded_jax",
            "version": metadata.version("coded_jax"),
            "description": "Answers from the first results that suffice.",
        },
        "paths": {
            "/predict": {"post": predict},
            "/reload": {"post": reload},
            **{path: {"get": get} for path, get in gets.items()},
        },
        "security": [{}, {"token": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _responses(
    success: str, *errors: int, content: dict[str, Any] | None = None
) -> dict[str, Any]:
    error = {"application/json": _reference("Error")}
    return {
        "200": {"description": success, **({"content": content} if content else {})},
        **{str(e): {"description": ERRORS[e], "content": error} for e in errors},
    }


def _reference(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _schema(kind: Any) -> dict[str, Any]:
    """Returns the schema of a field of `Response` as JSON."""
    if kind is np.ndarray or typing.get_origin(kind) is tuple:
        return {"type": "array", "items": {}}
    if kind is bool:
        return {"type": "boolean"}
    return {"type": "object"} if typing.get_origin(kind) is dict else {}
