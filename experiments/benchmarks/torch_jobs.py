"""The jobs of the benchmark in PyTorch, done by `torch_baseline.py`."""

from __future__ import annotations

import contextlib
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

from benchmarks import jax_jobs, profiling
from benchmarks.jax_jobs import Subject
from benchmarks.profiling import Prepared
from benchmarks.torch_baseline import (
    CodedLeNet,
    Job,
    as_channels_first,
    device,
    synchronise,
    trainer,
)

COMPILE_SECONDS = 90  # then torch.compile counts as not working


def make_model(s: Subject) -> CodedLeNet:
    """Returns a model on its device that computes what the subject does."""
    model = CodedLeNet(Job(**jax_jobs.sizes(s)))
    load(model, jax.tree.map(np.asarray, {**s.frozen, **s.params[0]}))
    return model.to(device())


def load(model: CodedLeNet, variables: dict[str, Any]) -> None:
    """Copies the parameters of `coded_jax` into modules with other orders of axes.

    Args:
      model: of the same sizes.
      variables: of Flax, as numpy arrays: `f_conv` and `head` of the base model,
        `encoder`, `decoder` and `sums` of the code.
    """
    job = model.job
    m, m2, depth = job.share
    inputs = {"head": (job.k * m - job.surplus, m2, depth)}
    outputs = {}
    if job.network == "mlp":
        inputs["decoder"], outputs["decoder"] = (job.n, *job.share), (job.k, *job.share)
    model.sums.data.copy_(torch.from_numpy(variables["sums"].copy()))
    for name, tree in variables.items():
        if name == "sums":
            continue
        modules = [x for x in getattr(model, name).modules() if hasattr(x, "weight")]
        layers = jax_jobs.layers(tree["params"])
        kernels, biases = [x["kernel"] for x in layers], [x["bias"] for x in layers]
        if name in inputs:
            kernels[0] = _depth_first(kernels[0], inputs[name])
        if name in outputs:
            kernels[-1] = _depth_first(kernels[-1].T, outputs[name]).T
            biases[-1] = _depth_first(biases[-1], outputs[name])
        for module, kernel, bias in zip(modules, kernels, biases, strict=True):
            axes = (1, 0) if kernel.ndim == 2 else (3, 2, 0, 1)
            module.weight.data.copy_(torch.from_numpy(kernel.transpose(axes).copy()))
            module.bias.data.copy_(torch.from_numpy(bias.copy()))


def train(s: Subject, batch: int, compile: bool = False) -> Prepared:
    """Prepares training steps of the code.

    Raises:
      RuntimeError: torch.compile does not work here.
    """
    model, images = make_model(s), as_channels_first(s.dataset.train.images)
    step = trainer(model, images, batch)
    if not compile:
        return Prepared(_repeat(step))
    _compile(model, "loss")
    return Prepared(_repeat(step), _first_call(step))


def infer(s: Subject, batch: int, compile: bool = False) -> dict[str, Prepared]:
    """Prepares inferences with nothing lost and with the first data piece lost.

    Raises:
      RuntimeError: torch.compile does not work here.
    """
    model = make_model(s).eval()
    images = as_channels_first(s.dataset.train.images[:batch])
    if compile:
        _compile(model, "logits")
    jobs = {}
    for name, lost in (("nothing", -1), ("data 0", 0)):
        available = torch.arange(s.pipeline.n, device=device())[None] != lost
        call = _without_gradients(model, model.infer, images, available)
        jobs[name] = Prepared(
            _repeat(call, wait=True), _first_call(call) if compile else 0.0
        )
    return jobs


def parts(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares encode, `f_conv` and decode, each by itself, forward."""
    model, images, queries, features, available = _stages(s, batch)
    encode = lambda images: model.encode(model.split(model.pixels(images)))
    decode = lambda *args: model.merge(model.decode(*args))
    calls = {
        "encode": _without_gradients(model, encode, images),
        "f_conv": _without_gradients(model, model.devices, queries),
        "decode": _without_gradients(model, decode, features, available),
    }
    return {name: Prepared(_repeat(call, wait=True)) for name, call in calls.items()}


def operations(s: Subject, batch: int) -> dict[str, Prepared]:
    """Prepares the codec's networks and `f_conv`, forward and backward."""
    model, images, queries, features, available = _stages(s, batch)
    network, k = s.config.encoder, s.config.k
    weights = {
        x: [model.sums, *getattr(model, x).parameters()] for x in ("encoder", "decoder")
    }
    queries, features = (x.clone().requires_grad_() for x in (queries, features))
    encode = lambda: model.encode(model.split(model.pixels(images)))[:, k:]
    decode = lambda: model.merge(model.decode(features, available))
    return {
        f"{network} encoder": _backward(encode, model, weights["encoder"]),
        f"{network} decoder": _backward(decode, model, [*weights["decoder"], features]),
        "f_conv": _backward(lambda: model.devices(queries), model, [queries]),
    }


def references(s: Subject, side: int, length: int) -> dict[str, Prepared]:
    """Prepares a matrix product, adding to an array in place, and Adam on the code."""
    dtype = getattr(torch, s.config.precision)
    x = torch.randn(side, side, dtype=dtype, device=device())
    array = torch.zeros(length, device=device())
    params = [p for p in make_model(s).parameters() if p.requires_grad]
    for p in params:
        p.grad = torch.full_like(p, 1e-3)
    adam = torch.optim.Adam(params, lr=1e-3, weight_decay=1e-5)
    return {
        "matrix product": Prepared(_repeat(lambda: x @ x, wait=True)),
        "add in place": Prepared(_repeat(lambda: array.add_(1))),
        "Adam": Prepared(_repeat(adam.step)),
    }


def set_up() -> dict[str, Any]:
    """Makes the two frameworks comparable, and returns PyTorch's settings."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # as JAX's default there
    torch.compiler.config.force_disable_caches = True  # it shall compile, not look up
    return {
        "version": torch.__version__,
        "device": str(device()),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def _depth_first(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Moves D first in `[.., M, M', D]`, which is flat in the first axis of `x`."""
    wide = x.reshape(*shape, *x.shape[1:])
    return np.moveaxis(wide, len(shape) - 1, len(shape) - 3).reshape(x.shape)


def _stages(s: Subject, batch: int) -> tuple[Any, ...]:
    """Returns the model, images, queries, features and which results are available."""
    model = make_model(s)
    images = as_channels_first(s.dataset.train.images[:batch])
    with torch.inference_mode(False), torch.no_grad(), model.autocast():
        queries = model.encode(model.split(model.pixels(images)))
        features = model.devices(queries)
    available = torch.arange(s.pipeline.n, device=device())[None] != 0
    return model, images, queries, features, available


def _without_gradients(
    model: CodedLeNet, f: Callable, *args: Tensor
) -> Callable[[], Any]:
    def call() -> Any:
        with torch.inference_mode(), model.autocast():
            return f(*args)

    return call


def _backward(
    f: Callable[[], Tensor], model: CodedLeNet, inputs: list[Tensor]
) -> Prepared:
    """Prepares `f` and its gradients by `inputs`, for one gradient of its output."""

    def call() -> Any:
        with model.autocast():
            y = f()
        return torch.autograd.grad(y, inputs, torch.ones_like(y))

    return Prepared(_repeat(call, wait=True))


def _repeat(f: Callable[[], Any], wait: bool = False) -> profiling.Job:
    """Returns a job that calls `f`, and waits for each call or only for the last."""

    def job(calls: int) -> None:
        for _ in range(calls):
            f()
            if wait:
                synchronise()
        synchronise()

    return job


def _compile(model: CodedLeNet, name: str) -> None:
    """Replaces a method by one that torch.compile compiles."""
    torch._dynamo.reset()  # else it gives up, silently, after a few models
    setattr(model, name, torch.compile(getattr(model, name), dynamic=False))


def _first_call(f: Callable[[], Any]) -> float:
    """Returns the seconds of the first call, which compiles."""
    start = time.perf_counter()
    try:
        with _time_limit(COMPILE_SECONDS), warnings.catch_warnings(action="ignore"):
            f()
    except Exception as error:  # of many types, and none of them is ours to mend
        text = str(error).strip() or type(error).__name__
        raise RuntimeError(f"torch.compile: {text.splitlines()[0]}") from error
    synchronise()
    return time.perf_counter() - start


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
