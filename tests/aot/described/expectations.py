"""What is asserted of every program that a compiler made."""

import re

import jax

from coded_jax.aot.chips import Chip
from coded_jax.aot.compiled import figures_of
from coded_jax.aot.hlo import Module
from coded_jax.aot.programs import Program
from coded_jax.aot.topologies import compiler_options


def compiled(program: Program) -> jax.stages.Compiled:
    """Compiles a program, with its compiler's own error where it is refused."""
    return program.lower().compile(compiler_options(program.mesh.devices.flat[0]))


def collectives_of(program: jax.stages.Compiled, chip: Chip) -> dict[str, int]:
    """Returns how many collectives there are of each kind in a program that fits.

    Asserts what holds for all: it asks nothing of the host, needs less memory than the
    chip has, and computes by none of the kernels of CPUs.
    """
    figures = figures_of(program)
    assert figures.host == ()
    assert 0 < figures.needed < chip.memory
    targets = re.findall(r'custom_call_target="([^"]*)"', program.as_text())
    assert not [name for name in targets if name.startswith("coded_jax")]
    return {kind: x.count for kind, x in figures.collectives.items()}


def takes_pattern(program: jax.stages.Compiled, *sizes: int) -> bool:
    """Returns whether an erasure pattern, bool `[*sizes, 1]`, is an input."""
    form = ",".join(map(str, sizes))
    module = Module(program.as_text())
    inputs = [x for x in module.computations[module.entry] if x.opcode == "parameter"]
    return any(x.types.startswith(f"pred[{form},1]") for x in inputs)
