"""Learned erasure codes for distributed CNN inference.

An image is split into `k` overlapping pieces, an encoder makes `r` parity pieces, all
`n = k + r` pieces run through the same frozen `f_conv`, and from any `k` results a
decoder reconstructs the features that the head classifies.

Letters, used everywhere:

    B      batch
    H W C  height, width and channels of an image
    h w    height and width of a piece
    k      data pieces          r   parity pieces          n = k + r
    M M'   height and width of one share of the features
    M* M'* height and width of the merged features
    D      channels of the features
    l      lost results

Give a CNN of your own a code with `protect`, or step by step with `make_pipeline` and
`train`; use a finished run with `load`; try any code with `evaluate`, and any worker's
loss with `serve`. What is not listed here is imported from its package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coded_jax import codes as codes
    from coded_jax import data as data
    from coded_jax import models as models
    from coded_jax.inference.pipeline import Pipeline as Pipeline
    from coded_jax.inference.pipeline import infer as infer
    from coded_jax.runs.build import make_pipeline as make_pipeline
    from coded_jax.runs.coded_model import CodedModel as CodedModel
    from coded_jax.runs.evaluate import evaluate as evaluate
    from coded_jax.runs.experiment import protect as protect
    from coded_jax.runs.experiment import train as train
    from coded_jax.runs.load import load as load
    from coded_jax.service import serve as serve
    from coded_jax.splitting import SplitPlan as SplitPlan
    from coded_jax.splitting import merge as merge
    from coded_jax.splitting import split as split
    from coded_jax.splitting.plan import make_plan as make_plan
    from coded_jax.staging.planning import plan_stages as plan_stages
    from coded_jax.training.config import TrainConfig as TrainConfig
    from coded_jax.training.losses import coded_loss as coded_loss
    from coded_jax.training.tasks import sample_erasures as sample_erasures
    from coded_jax.types import BaseModel as BaseModel
    from coded_jax.types import Code as Code
    from coded_jax.types import CodeShape as CodeShape
    from coded_jax.types import Quorum as Quorum

__version__ = "0.1.0"

_PACKAGES = ("codes", "data", "models")
_MODULES = {
    "BaseModel": "types",
    "Code": "types",
    "CodeShape": "types",
    "CodedModel": "runs.coded_model",
    "Pipeline": "inference.pipeline",
    "Quorum": "types",
    "SplitPlan": "splitting",
    "TrainConfig": "training.config",
    "coded_loss": "training.losses",
    "evaluate": "runs.evaluate",
    "infer": "inference.pipeline",
    "load": "runs.load",
    "make_pipeline": "runs.build",
    "make_plan": "splitting.plan",
    "merge": "splitting",
    "plan_stages": "staging.planning",
    "protect": "runs.experiment",
    "sample_erasures": "training.tasks",
    "serve": "service",
    "split": "splitting",
    "train": "runs.experiment",
}
"""The module in which each name is defined."""

__all__ = sorted(["__version__", *_PACKAGES, *_MODULES])


def __getattr__(name: str) -> Any:
    # Lazy, so that `import coded_jax` costs nothing and touches no device.
    if name in _PACKAGES:
        return import_module(f"coded_jax.{name}")
    if name in _MODULES:
        return getattr(import_module(f"coded_jax.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'coded_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
