"""The jobs of the benchmark in PyTorch, done by `torch_baseline.py`."""

from __future__ import annotations

import collections
import functools
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
from benchmarks.torch_baseline import Coded, patterns, trainer
from coded_jax.checks import first_line
from coded_jax.types import PyTree

CHUNK = 500  # images whose features are computed at once
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
resident = functools.partial(torch.as_tensor, device=DEVICE)


def model_of(s: Subject) -> Coded:
    """Returns a model, channels last, that computes what the subject does."""
    model = Coded(s).to(DEVICE, memory_format=torch.channels_last).train()
    frozen, params = jax.tree.map(np.asarray, (s.frozen, s.params))
    if "f_conv" in frozen:
        blocks = [frozen["f_conv"]]
    else:
        blocks = [frozen[f"block_{i + 1}"] for i in range(len(frozen) - 1)]
    set_variables(model.network.blocks, blocks)
    set_variables(model.network.head, [frozen["head"]])
    for code, own in zip(model.codes, params, strict=True):
        code.sums.data.copy_(torch.tensor(own["sums"]))
        for name in ("encoder", "decoder"):
            if getattr(code, name) is not None:
                set_variables(getattr(code, name), [own[name]])
    return model


def set_variables(module: nn.Module, variables: Iterable[PyTree]) -> None:
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
    names = {"scale": "weight", "mean": "running_mean", "var": "running_var"}
    kinds = {"kernel": (nn.Conv2d, nn.Linear), "scale": nn.BatchNorm2d}
    for own, kind in kinds.items():
        layers = [layer for layer in module.modules() if isinstance(layer, kind)]
        of_kind = [tree for tree in trees if own in tree]
        for layer, tree in zip(layers, of_kind, strict=True):
            for name, value in tree.items():
                if name == "kernel":  # HWIO, or input by output
                    name, value = "weight", np.moveaxis(value, (-1, -2), (0, 1))
                theirs = getattr(layer, names.get(name, name))
                theirs.data.copy_(torch.tensor(value))


def base(s: Subject, batch: int, compile: bool = False) -> dict[str, Prepared]:
    """Prepares training steps of the base model, no longer frozen.

    Raises:
      RuntimeError: torch.compile does not work here.
    """
    network = model_of(s).network.requires_grad_().train()
    if compile:
        _compile(network, "loss")
    images = resident(s.dataset.train.images)
    labels = resident(s.dataset.train.labels).long()
    loss = lambda rows: network.loss(images[rows], labels[rows])
    return {BASE: _prepared(trainer(network, images, batch, loss), compile)}


def code(s: Subject, batch: int, compile: bool = False) -> dict[str, Prepared]:
    """Prepares training steps of the code; see `base`."""
    model, images = model_of(s), resident(s.dataset.train.images)
    if compile:
        _compile(model, "loss")
    with torch.no_grad():
        chunks = [model.targets(few) for few in images.split(CHUNK)]
    targets = [torch.cat(of_stage) for of_stage in zip(*chunks, strict=True)]
    masks, weights = map(resident, map(torch.tensor, patterns(model.k, model.r)))

    def loss(rows: Tensor) -> Tensor:
        available = masks[torch.multinomial(weights, batch, replacement=True)]
        return model.loss(images[rows], available, [x[rows] for x in targets])

    return {CODE: _prepared(trainer(model.codes, images, batch, loss), compile)}


def inference(s: Subject, batch: int, compile: bool = False) -> dict[str, Prepared]:
    """Prepares inferences with nothing lost and with the first data piece lost."""
    model = model_of(s).eval()
    if compile:
        _compile(model, "logits")
    images = resident(s.dataset.train.images[:batch])
    jobs = {}
    for name, lost in ((NOTHING_LOST, -1), (ONE_LOST, 0)):
        available = resident(torch.arange(s.pipeline.n))[None] != lost

        def call(available: Tensor = available) -> None:
            with torch.inference_mode():
                model.infer(images, available)
            _synchronise()

        jobs[name] = _prepared(call, compile)
    return jobs


def set_up() -> dict[str, Any]:
    """Makes the two frameworks comparable, and returns PyTorch's settings."""
    if DEVICE == "cuda":
        torch.set_float32_matmul_precision("high")  # as JAX's default there
    return {
        "version": torch.__version__,
        "device": DEVICE,
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "onednn": torch.backends.mkldnn.is_available(),
    }


def _synchronise() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


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
        _synchronise()

    if not compile:
        return Prepared(job)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(action="ignore"):
            job(1)
    except Exception as error:  # of many types, and none of them is ours to mend
        raise RuntimeError(f"torch.compile: {first_line(error)}") from error
    return Prepared(job, time.perf_counter() - start)
