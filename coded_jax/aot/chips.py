"""Accelerator chips: their peaks, as their vendors state them, and their names here."""

from __future__ import annotations

from typing import NamedTuple


class Chip(NamedTuple):
    """One device as JAX sees it: a chip, or one of the two dies of a TPU7x.

    Attributes:
      name: in targets, as `v5e`.
      kind: JAX's `device_kind`.
      flops: `{dtype: operations per second}` of matrix products, without sparsity. Of
        float32 it is what JAX's default precision computes with: bfloat16 products on
        TPUs, TF32 on GPUs.
      memory: bytes of HBM.
      memory_bandwidth: bytes per second of HBM.
      link_bandwidth: bytes per second that leave a device for others, in one direction:
        half of the bidirectional figure where the vendor states that.
      source: the vendor's page with these figures.
    """

    name: str
    kind: str
    flops: dict[str, float]
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    source: str


def _tpu(
    name: str, kind: str, *, teraflops: float, memory: float, moved: float, sent: float
) -> Chip:
    """Makes a TPU's record, of figures in tera-, gibi- and gigabytes as its page has
    them."""
    return Chip(
        name,
        kind,
        flops=dict.fromkeys(("bfloat16", "float32"), teraflops * 1e12),
        memory=memory * 2**30,
        memory_bandwidth=moved * 1e9,
        link_bandwidth=sent * 1e9,
        source=f"https://docs.cloud.google.com/tpu/docs/{name}",
    )


CHIPS = {
    chip.name: chip
    for chip in (
        # Six links of 50 GB/s in each direction, see the paper on that page.
        _tpu("v4", "TPU v4", teraflops=275, memory=32, moved=1200, sent=300),
        _tpu("v5e", "TPU v5 lite", teraflops=197, memory=16, moved=819, sent=400 / 2),
        _tpu("v5p", "TPU v5", teraflops=459, memory=95, moved=2765, sent=1200 / 2),
        _tpu("v6e", "TPU v6 lite", teraflops=918, memory=32, moved=1638, sent=800 / 2),
        # Half a chip of 2307 teraflops, 192 GiB and 7380 GB/s: JAX sees two devices.
        _tpu("tpu7x", "TPU7x", teraflops=1153.5, memory=96, moved=3690, sent=1200 / 4),
        Chip(
            "h100",
            "NVIDIA H100 80GB HBM3",
            flops={"bfloat16": 989.4e12, "float32": 494.7e12},
            memory=80e9,
            memory_bandwidth=3.35e12,
            link_bandwidth=900e9 / 2,
            source="https://www.nvidia.com/en-us/data-center/h100/",
        ),
    )
}
"""Chips that programs can be compiled for where there are none, by name."""


def chip_of(kind: str) -> Chip | None:
    """Returns the chip of a `device_kind`; None for one that is not known."""
    return next((chip for chip in CHIPS.values() if chip.kind == kind), None)
