"""Erasure codes: pairs of pure functions `encode` and `decode`; see `types.Code`."""

from coded_jax.codes.baselines import no_parity as no_parity
from coded_jax.codes.baselines import zero_fill as zero_fill
from coded_jax.codes.learned import DECODER_CHANNELS as DECODER_CHANNELS
from coded_jax.codes.learned import NETWORKS as NETWORKS
from coded_jax.codes.learned import learned_code as learned_code
