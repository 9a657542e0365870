"""The jobs of the benchmark in PyTorch, done by `torch_baseline.py`."""

from __future__ import annotations

import collections
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import torch
from flax import traverse_util
from torch import Tensor, nn

from benchmarks.subjects import Prepared, Subject
from benchmarks.tables import BASE, CODE, NOTHING_LOST, ONE_LOST
from benchmarks.torch_baseline import (
    Coded,
    base_trainer,
    code_trainer,
    device,
    make_model,
    synchronise,
)
from coded_jax.checks import first_line
from coded_jax.types import PyTree


def model_of(s: Subject) -> Coded:
    """Returns a model on its device that computes what the subject does."""
    model = make_model(s)
    frozen, params = jax.tree.map(np.asarray, (s.frozen, s.params))
    if "f_conv" in frozen:
        blocks = [frozen["f_conv"]]
    else:
        blocks = [frozen[f"block_{i + 1}"] for i in range(len(frozen) - 1)]
    load(model.network.blocks, blocks)
    load(model.network.head, [frozen["head"]])
    for code, own in zip(model.codes, params, strict=True):
        code.sums.data.copy_(torch.tensor(own["sums"]))
        for name in ("encoder", "decoder"):
            if getattr(code, name) is not None:
                load(getattr(code, name), [own[name]])
    return model


def load(module: nn.Module, variables: Iterable[PyTree]) -> None:
    """Copies variables of Flax, of several trees in order, into a module's layers.

    Raises:
      ValueError: the module has another number of layers.
    """
    trees = []  # of one layer each, with its running statistics
    for tree in variables:
        layers = collections.defaultdict(dict)
        for collection in tree.values() if "params" in tree else [tree]:
            for (*path, name), leaf in traverse_util.flatten_dict(collection).items():
                layers[tuple(path)][name] = leaf
        trees += [layers[path] for path in sorted(layers)]
    kinds = (nn.Conv2d, nn.Linear), nn.BatchNorm2d
    for kind, name in zip(kinds, ("kernel", "scale"), strict=True):
        layers = [layer for layer in module.modules() if isinstance(layer, kind)]
        own = [tree for tree in trees if name in tree]
        for layer, tree in zip(layers, own, strict=True):
            weight = tree[name]
            if weight.ndim > 1:
                weight = weight.transpose((3, 2, 0, 1) if weight.ndim == 4 else (1, 0))
            values = {"weight": weight}
            names = (("bias", "bias"), ("mean", "running_mean"), ("var", "running_var"))
            values |= {theirs: tree[ours] for ours, theirs in names if ours in tree}
            for theirs, value in values.items():
                getattr(layer, theirs).data.copy_(torch.tensor(value))


def base(s: Subject, batch: int, compile: bool = False) -> dict[str, Prepared]:
    """Prepares training steps of the base model.

    Raises:
      RuntimeError: torch.compile does not work here.
    """
    model, split = model_of(s), s.dataset.train
    if compile:
        _compile(model.network, "loss")
    labels = torch.from_numpy(split.labels).long().to(device())
    step = base_trainer(
        model, torch.from_numpy(split.images).to(device()), labels, batch
    )
    return {BASE: _prepared(step, compile)}


def code(s: Subject, batch: int, compile: bool = False) -> dict[str, Prepared]:
    """Prepares training steps of the code; see `base`."""
    model = model_of(s)
    if compile:
        _compile(model, "loss")
    step = code_trainer(
        model, torch.from_numpy(s.dataset.train.images).to(device()), batch
    )
    return {CODE: _prepared(step, compile)}


def inference(s: Subject, batch: int, compile: bool = False) -> dict[str, Prepared]:
    """Prepares inferences with nothing lost and with the first data piece lost."""
    model = model_of(s).eval()
    if compile:
        _compile(model, "logits")
    images = torch.from_numpy(s.dataset.train.images[:batch]).to(device())
    jobs = {}
    for name, lost in ((NOTHING_LOST, -1), (ONE_LOST, 0)):
        available = torch.arange(s.pipeline.n, device=device())[None] != lost

        def call(available: Tensor = available) -> None:
            with torch.inference_mode():
                model.infer(images, available)
            synchronise()

        jobs[name] = _prepared(call, compile)
    return jobs


def set_up() -> dict[str, Any]:
    """Makes the two frameworks comparable, and returns PyTorch's settings."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # as JAX's default there
    return {
        "version": torch.__version__,
        "device": str(device()),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "onednn": torch.backends.mkldnn.is_available(),
    }


def _compile(module: nn.Module, name: str) -> None:
    """Replaces a method by one that torch.compile compiles."""
    torch._dynamo.reset()  # else it gives up, silently, after a few models
    setattr(module, name, torch.compile(getattr(module, name), dynamic=False))


def _prepared(step: Callable[[], Any], compile: bool) -> Prepared:
    """Returns a job that calls `step` and waits for the last call, compiled or eager.

    Raises:
      RuntimeError: the first call fails.
    """

    def job(calls: int) -> None:
        for _ in range(calls):
            step()
        synchronise()

    if not compile:
        return Prepared(job)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(action="ignore"):
            job(1)
    except Exception as error:  # of many types, and none of them is ours to mend
        raise RuntimeError(f"torch.compile: {first_line(error)}") from error
    return Prepared(job, time.perf_counter() - start)
