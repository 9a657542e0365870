"""Settings of the learned code: its recipe and its networks."""

from __future__ import annotations

import dataclasses

from coded_jax.checks import is_integer, require
from coded_jax.codes.networks import DECODERS, ENCODERS
from coded_jax.codes.networks.conv import DILATIONS
from coded_jax.codes.networks.network import READS
from coded_jax.codes.sums import SUMS
from coded_jax.settings import (
    INTEGER,
    INTEGERS,
    TEXT,
    Accepted,
    check,
    integers,
    one_of,
    setting,
)

RECIPES = ("paper", "systematic")
DECODER_CHANNELS = ("joint", "independent")
PARITY_STARTS = ("base", "anew")
PARITY_PIECES = ("sums", "montage", "smaller")
RETURNED = ("shares", "outputs")
MAX_WIDTH, MAX_DILATION, MAX_KERNEL = 2**16, 2**10, 31

_DILATIONS = Accepted(
    lambda dilations: (
        len(dilations) > 0
        and all(is_integer(d) and 1 <= d <= MAX_DILATION for d in dilations)
    ),
    f"integers in 1..{MAX_DILATION}",
)
_KERNEL = Accepted(
    lambda size: is_integer(size) and size % 2 == 1 and 1 <= size <= MAX_KERNEL,
    f"an odd number in 1..{MAX_KERNEL}",
)


@dataclasses.dataclass(frozen=True)
class LearnedConfig:
    """Recipe and networks of `learned_code`; the help of each setting describes it.

    Raises:
      ValueError: a setting is out of range.
    """

    recipe: str = setting(
        "paper",
        "paper (the decoder regenerates all shares, constant learning rate) or "
        "systematic (shares that arrived are passed through, cosine decay)",
        one_of(RECIPES),
    )
    # A name after `__post_init__`.
    encoder: str = setting(
        None,
        "network of a learned code; mlp, but linear for systematic codes of deep base "
        "models",
        one_of(ENCODERS),
        TEXT,
    )
    decoder: str = setting(
        None,
        "likewise; mlp, but low_rank for systematic codes of deep base models",
        one_of(DECODERS),
        TEXT,
    )
    encoder_width: int | None = setting(
        None,
        "of the encoder's hidden layers; the network's own if not given",
        integers(1, MAX_WIDTH),
        INTEGER,
    )
    decoder_width: int | None = setting(
        None,
        "of the decoder's hidden layers; the network's own if not given",
        integers(1, MAX_WIDTH),
        INTEGER,
    )
    dilations: tuple[int, ...] = setting(
        DILATIONS, "of the layers of conv networks", _DILATIONS, INTEGERS
    )
    decoder_dilations: tuple[int, ...] | None = setting(
        None,
        "of the decoder's layers; as the encoder's if not given",
        _DILATIONS,
        INTEGERS,
    )
    kernel: int = setting(
        3, "rows and columns of the kernels of conv networks", _KERNEL
    )
    decoder_channels: str | None = setting(
        None,
        "decode the feature channels together, or each by itself with shared weights; "
        "the decoder's own if not given: independent for conv, joint for the others",
        one_of(DECODER_CHANNELS),
        TEXT,
    )
    decoder_reads: str = setting(
        "all",
        "what sharpen decoders read beside the results: the stage's own input and the "
        "pattern, which is the share and which results arrived (all), one of the two "
        "(input, pattern), or neither (results)",
        one_of(READS),
    )
    nonnegative: bool = setting(
        False, "whether a systematic decoder ends in a ReLU, for features that do"
    )
    sums: str = setting(
        "cosine",
        "initial sums of the pieces that are a systematic code's parity pieces",
        one_of(SUMS),
    )
    parity_start: str = setting(
        "base",
        "what the networks of parity models start from: the base model's weights, or "
        "ones drawn anew",
        one_of(PARITY_STARTS),
    )
    parity_pieces: str = setting(
        "sums",
        "what parity pieces begin as: sums of the pieces; or the whole image, made "
        "smaller to a piece's shape (smaller), of systematic learned codes; or the "
        "pieces side by side, made smaller (montage), of parity models with r=1 and "
        "k=2 or 4",
        one_of(PARITY_PIECES),
    )

    returned: str = setting(
        "shares",
        "features that devices return: of their share, or of their whole piece "
        "(outputs), also those beside the share, which are inexact but show something "
        "of the neighbours' shares; of systematic learned codes",
        one_of(RETURNED),
    )

    def __post_init__(self) -> None:
        for name in ("encoder", "decoder"):
            if getattr(self, name) is None:
                # The dataclass is frozen, but not yet.
                object.__setattr__(self, name, "mlp")
        check(self)
        fits = self.decoder_reads == "all" or DECODERS[self.decoder].guided
        require("decoder_reads", self.decoder_reads, fits, "all without sharpen")

    @property
    def systematic(self) -> bool:
        """Returns whether the learned code passes through the shares that arrived."""
        return self.recipe == "systematic"
