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


TPU_PAGES = "https://docs.cloud.google.com/tpu/docs"


def _tpu(
    kind: str, *, teraflops: float, memory: float, moved: float, sent: float, name: str
) -> Chip:
    """Makes a TPU's record, of figures in tera-, gibi- and gigabytes as its page has
    them."""
    flops = {dtype: teraflops * 1e12 for dtype in ("bfloat16", "float32")}
    rates = {"memory_bandwidth": moved * 1e9, "link_bandwidth": sent * 1e9}
    source = f"{TPU_PAGES}/{name}"
    return Chip(name, kind, flops, memory=memory * 2**30, source=source, **rates)


CHIPS = {
    chip.name: chip
    for chip in (
        # Six links of 50 GB/s in each direction, see the paper on that page.
        _tpu("TPU v4", teraflops=275, memory=32, moved=1200, sent=300, name="v4"),
        _tpu(
            "TPU v5 lite", teraflops=197, memory=16, moved=819, sent=400 / 2, name="v5e"
        ),
        _tpu("TPU v5", teraflops=459, memory=95, moved=2765, sent=1200 / 2, name="v5p"),
        _tpu(
            "TPU v6 lite",
            teraflops=918,
            memory=32,
            moved=1638,
            sent=800 / 2,
            name="v6e",
        ),
        # Half a chip: JAX sees two devices for each.
        _tpu(
            "TPU7x",
            teraflops=2307 / 2,
            memory=192 / 2,
            moved=7380 / 2,
            sent=1200 / 4,
            name="tpu7x",
        ),
        Chip(
            "h100",
            "NVIDIA H100 80GB HBM3",
            {"bfloat16": 989.4e12, "float32": 494.7e12},
            80e9,
            3.35e12,
            900e9 / 2,
            "https://www.nvidia.com/en-us/data-center/h100/",
        ),
    )
}
"""Chips that programs can be compiled for where there are none, by name."""


def chip_of(kind: str) -> Chip | None:
    """Returns the chip of a `device_kind`; None for one that is not known."""
    return next((chip for chip in CHIPS.values() if chip.kind == kind), None)
