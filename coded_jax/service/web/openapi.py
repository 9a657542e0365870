"""The description of the front by OpenAPI, and a page that shows it."""

from __future__ import annotations

import typing
from importlib import metadata
from typing import Any

import numpy as np

from coded_jax.service.response import Response

ASSETS = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
"""Files of Swagger UI that the page needs; this process serves them."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>coded_jax</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """\
// The description asks for the token, too, where there is one.
let bearer = sessionStorage.getItem("token");
async function start() {
  const headers = () => (bearer ? { Authorization: `Bearer ${bearer}` } : {});
  let answer = await fetch("openapi.json", { headers: headers() });
  if (answer.status === 401 && (bearer = prompt("Token"))) {
    sessionStorage.setItem("token", bearer);
    answer = await fetch("openapi.json", { headers: headers() });
  }
  SwaggerUIBundle({
    spec: await answer.json(),
    dom_id: "#page",
    validatorUrl: null, // no other host is asked
    requestInterceptor: (request) => {
      request.headers = { ...headers(), ...request.headers };
      return request;
    },
  });
}
start();
"""
ONLY_THIS_HOST = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
)
"""The header `Content-Security-Policy` of the page."""

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
    schemas = {
        "Response": {
            "type": "object",
            "properties": {
                name: _schema(kind)
                for name, kind in typing.get_type_hints(Response).items()
            },
            "required": [*Response._fields],
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
        "paths": _paths(shape, dtype),
        "security": [{}, {"token": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths(shape: tuple[int, int, int], dtype: str) -> dict[str, Any]:
    free: dict[str, Any] = {"security": [{}]}
    ready = _responses(503) | {"200": {"description": "it can"}}
    reload = _responses(401, 403, 409, 500) | {"200": {"description": "loaded"}}
    return {
        "/predict": {"post": _predict(shape, dtype)},
        "/summary": {"get": _get("Returns counts and latencies so far", "object")},
        "/metrics": {"get": _get("Returns the same as text for Prometheus", None)},
        "/healthz": {
            "get": {
                "summary": "Says whether it can ever answer again",
                "responses": ready,
            }
            | free
        },
        "/readyz": {
            "get": {"summary": "Says whether it can answer now", "responses": ready}
            | free
        },
        "/reload": {
            "post": {"summary": "Loads the model anew", "responses": reload},
        },
    }


def _predict(shape: tuple[int, int, int], dtype: str) -> dict[str, Any]:
    rows, columns, channels = shape
    file = {"schema": {"type": "string", "format": "binary"}}
    kinds = ["application/octet-stream", "application/x-npy"]
    kinds += ["image/png", "image/jpeg"] if dtype == "uint8" else []
    answer = {"schema": {"$ref": "#/components/schemas/Response"}}
    return {
        "summary": "Computes the classes of images",
        "description": (
            f"The body is an .npy file of {dtype} [B, {rows}, {columns}, {channels}] "
            f"or [{rows}, {columns}, {channels}]; for uint8 also a PNG or JPEG file "
            "of one image of this size."
        ),
        "parameters": [
            {
                "name": "Deadline",
                "in": "header",
                "description": "seconds that the answer may take",
                "schema": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
            }
        ],
        "requestBody": {"required": True, "content": {kind: file for kind in kinds}},
        "responses": {
            "200": {
                "description": "The response",
                "content": {"application/json": answer},
            },
            **_responses(400, 401, 403, 408, 413, 415, 500, 503, 504),
        },
    }


def _get(summary: str, kind: str | None) -> dict[str, Any]:
    content = (
        {"application/json": {"schema": {"type": kind}}}
        if kind
        else {"text/plain": {"schema": {"type": "string"}}}
    )
    answer = {"200": {"description": "As it is now", "content": content}}
    return {"summary": summary, "responses": answer | _responses(401, 403)}


def _responses(*statuses: int) -> dict[str, Any]:
    error = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {
        str(status): {
            "description": ERRORS[status],
            "content": {"application/json": error},
        }
        for status in statuses
    }


def _schema(kind: Any) -> dict[str, Any]:
    """Returns the schema of a field of `Response` as JSON."""
    if kind is np.ndarray or typing.get_origin(kind) is tuple:
        return {"type": "array", "items": {}}
    if kind is bool:
        return {"type": "boolean"}
    if typing.get_origin(kind) is dict:
        return {"type": "object"}
    return {}
