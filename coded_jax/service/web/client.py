"""A client of the front: images in, answers out, with retries inside one deadline.

    from coded_jax.service.web.client import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict(images).classes)

It needs numpy and urllib3 alone; JAX is not imported.
"""

from __future__ import annotations

import io
import random
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from coded_jax.checks import require

try:
    import urllib3
except ImportError:
    problem = "client: it needs urllib3; pip install 'coded_jax[serve]'"
    raise ImportError(problem) from None

FLOATS = ("logits", "probabilities", "confidence")
"""Fields of an answer that are arrays, beside the `classes`."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds
DENIED, LATE = PermissionError, TimeoutError
ERRORS = {401: DENIED, 403: DENIED, 408: LATE, 504: LATE}
"""Errors by the status of an answer; of others below 500 a `ValueError`."""


class Client:
    """Sends requests over connections that are kept; many threads may share it.

    Args:
      url: of the front, as `http://127.0.0.1:8000`.
      token: that requests bear; None if none is asked for.
      deadline: seconds that a call may take, all attempts and pauses together: it is
        made again on errors of the connection and answers of 503, as while a service
        starts or is overloaded.
      ca_certs: file of the certificates to trust, PEM; those of the system if None.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        deadline: float = 10.0,
        ca_certs: str | None = None,
    ) -> None:
        scheme = url.startswith(("http://", "https://"))
        require("url", url, scheme, "http://HOST:PORT or https://HOST:PORT")
        self._url, self._deadline = url.rstrip("/"), deadline
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._pool = urllib3.PoolManager(maxsize=16, retries=False, ca_certs=ca_certs)

    def predict(self, images: Any, deadline: float | None = None) -> SimpleNamespace:
        """Returns the answer for images.

        Args:
          images: `[B, H, W, C]` or `[H, W, C]`, as the data set of the model has them.
          deadline: seconds that this call may take; those of the client if None.

        Returns:
          The fields of `service.Response` as attributes: `logits`, `classes`,
          `probabilities` and `confidence` are arrays, the others lists and numbers.

        Raises:
          ValueError: the service refuses the images; its own line.
          PermissionError: it asks for another token.
          TimeoutError: there was no answer by the deadline; says how the last attempt
            ended.
          ConnectionError: TLS cannot be agreed on.
          RuntimeError: the service has failed.
        """
        file = io.BytesIO()
        np.lib.format.write_array(file, np.asarray(images), allow_pickle=False)
        content = self._call("POST", "/predict", deadline, file.getvalue())
        floats = {name: np.asarray(content[name], np.float32) for name in FLOATS}
        classes = np.asarray(content["classes"], np.int32)
        return SimpleNamespace(**{**content, **floats, "classes": classes})

    def summary(self) -> dict[str, Any]:
        """Returns counts and latencies of the service so far; raises as `predict`."""
        return self._call("GET", "/summary")

    def reload(self, deadline: float = 600.0) -> None:
        """Has the service load its model anew, and returns when it has, which takes as
        long as its workers take to start; raises as `predict`."""
        self._call("POST", "/reload", deadline)

    def close(self) -> None:
        """Ends all connections."""
        self._pool.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _call(
        self,
        method: str,
        path: str,
        deadline: float | None = None,
        body: bytes | None = None,
    ) -> dict[str, Any]:
        """Returns the content of an answer, after as many attempts as it takes."""
        seconds = self._deadline if deadline is None else deadline
        end, longest = time.monotonic() + seconds, FIRST_PAUSE
        while True:
            pause = longest * random.uniform(0.5, 1)  # many are not to come at once
            longest = min(2 * longest, LONGEST_PAUSE)
            left = max(end - time.monotonic(), 0.001)  # it may be next to nothing
            try:
                response = self._pool.request(
                    method,
                    self._url + path,
                    body=body,
                    headers={**self._headers, "Deadline": f"{left:.3f}"},
                    timeout=urllib3.Timeout(total=left),
                    redirect=False,
                )
            except urllib3.exceptions.SSLError as error:  # as often as it is tried
                raise ConnectionError(f"{self._url}: {error}") from None
            except (urllib3.exceptions.HTTPError, OSError) as error:
                problem = f"{self._url}: not reached ({error})"
            else:
                status = response.status
                if status == 200:
                    return response.json()
                try:
                    problem = str(response.json()["error"])
                except (ValueError, TypeError, KeyError):  # a proxy's own page
                    problem = f"{status} {response.reason}"
                if status in ERRORS or status < 500:
                    raise ERRORS.get(status, ValueError)(problem)
                if status != 503:
                    raise RuntimeError(f"{status}: {problem}")
                told = response.headers.get("Retry-After", "")
                pause = max(pause, float(told) if told.isdecimal() else 0)
            if time.monotonic() + pause >= end:
                raise TimeoutError(f"no answer within {seconds:g} s: {problem}")
            time.sleep(pause)
