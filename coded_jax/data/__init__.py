"""Data sets in memory, their checks, their augmentation, and groups of images."""

from coded_jax.data.datasets import DATASETS as DATASETS
from coded_jax.data.datasets import check as check
from coded_jax.data.datasets import load as load
from coded_jax.inference.pixels import normalise as normalise
from coded_jax.types import Dataset as Dataset
from coded_jax.types import Split as Split
