"""Erasure codes: pairs of pure functions `encode` and `decode`; see `types.Code`.

A new code is a file with a `CodeShape -> Code` and a line in `registry.CODES`; a new
network of the learned code a file with a `Network` and a line in `networks`.
"""

from __future__ import annotations

from coded_jax.codes.config import CodeConfig as CodeConfig
from coded_jax.codes.config import ConvolutionSplit as ConvolutionSplit
from coded_jax.codes.config import GroupSplit as GroupSplit
from coded_jax.codes.config import ImageSplit as ImageSplit
from coded_jax.codes.config import ViewSplit as ViewSplit
from coded_jax.codes.curves import berrut as berrut
from coded_jax.codes.curves import spline as spline
from coded_jax.codes.learned import learned_code as learned_code
from coded_jax.codes.learned import no_parity as no_parity
from coded_jax.codes.learned_config import LearnedConfig as LearnedConfig
from coded_jax.codes.linear import addition as addition
from coded_jax.codes.linear import mds as mds
from coded_jax.codes.linear import mean_fill as mean_fill
from coded_jax.codes.linear import replication as replication
from coded_jax.codes.linear import uncoded as uncoded
from coded_jax.codes.linear import zero_fill as zero_fill
from coded_jax.codes.parity_model import parity_model as parity_model
from coded_jax.codes.registry import CODES as CODES
from coded_jax.codes.registry import LEARNED as LEARNED
from coded_jax.codes.registry import NO_PARITY as NO_PARITY
from coded_jax.codes.registry import AnyCode as AnyCode
from coded_jax.codes.registry import CodeEntry as CodeEntry
from coded_jax.codes.registry import entry_of as entry_of
from coded_jax.codes.registry import is_code as is_code
from coded_jax.codes.registry import make_code as make_code
from coded_jax.codes.registry import name_of as name_of
