"""Figures of programs: of texts written by hand, and of what is compiled here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from coded_jax.aot.chips import Chip
from coded_jax.aot.compiled import (
    Bound,
    Collectives,
    Figures,
    bound,
    collectives_of,
    figures_of,
)
from coded_jax.aot.hlo import Module
from tests.devices.counts import devices

CHIP = Chip("c", "C", {"float32": 100.0, "bfloat16": 400.0}, 1e9, 50.0, 10.0, "")


def program(*lines, head="HloModule f, num_partitions=8"):
    body = "\n".join(f"  {line}" for line in lines)
    return Module(f"{head}\n\nENTRY %main (x: f32[8]) -> f32[8] {{\n{body}\n}}\n")


X = "%x = f32[240]{0:T(1024)} parameter(0)"


@pytest.mark.parametrize(
    "groups, size",
    [
        ("replica_groups={{0,4},{1,5},{2,6},{3,7}}", 2),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2,'b'}", 4),
        ("replica_groups={}", 8),  # all
    ],
)
def test_bytes_sent_in_groups(groups, size):
    """960 bytes without the padding, a part of which stays where it is."""
    line = f"ROOT %a = f32[240]{{0:T(1024)}} all-to-all(%x), channel_id=1, {groups}"
    kinds = collectives_of(program(X, line))
    assert kinds == {"all-to-all": Collectives(1, 960 * (size - 1) // size)}


@pytest.mark.parametrize(
    "kind, result, sent",
    [
        ("all-to-all", "f32[240]{0}", 960 * 3 // 4),
        ("all-to-all", "(f32[60]{0}, f32[60], f32[60], f32[60])", 960 * 3 // 4),
        ("all-gather", "f32[960]{0}", 4 * 960 * 3 // 4),
        ("reduce-scatter", "f32[60]{0}", 240 * 3),
        ("all-reduce", "f32[240]{0}", 2 * 960 * 3 // 4),
        ("all-reduce", "(f32[120]{0}, f32[120]{0})", 2 * 960 * 3 // 4),
        ("collective-permute", "f32[240]{0}", 960),
    ],
)
def test_bytes_sent_by_kind(kind, result, sent):
    groups = "replica_groups={{0,1,2,3},{4,5,6,7}}"
    plain = program(X, f"ROOT %a = {result} {kind}(%x), {groups}")
    assert collectives_of(plain) == {kind: Collectives(1, sent)}
    # The types of a start differ: operands too, some counters, or the results alone.
    both = f"(({result}), {result}, u32[], u32[])"
    for types in (result, f"(f32[240]{{0}}, {result})", both):
        paired = program(
            X,
            f"%s = {types} {kind}-start(%x), {groups}",
            f"ROOT %a = {result} {kind}-done(%s)",
        )
        assert collectives_of(paired) == {kind: Collectives(1, sent)}


def figures(**changed):
    fields = {
        "operations": 200.0,
        "moved": 200,
        "cycles": None,
        "memory": {"arguments": 3, "outputs": 4, "temporaries": 5, "code": 6},
        "collectives": {"all-to-all": Collectives(2, 10), "all-gather": (1, 5)},
        "host": (),
        "fusions": 7,
    }
    fields["collectives"]["all-gather"] = Collectives(1, 5)
    return Figures(**fields | changed)


@pytest.mark.parametrize(
    "changed, dtype, limits, name, seconds",
    [
        ({}, "float32", (2.0, 4.0, 1.5), "memory", 4.0),
        ({"operations": 500.0}, "float32", (5.0, 4.0, 1.5), "compute", 5.0),
        ({"operations": 500.0}, "bfloat16", (1.25, 4.0, 1.5), "memory", 4.0),
        ({"moved": 10}, "bfloat16", (0.5, 0.2, 1.5), "links", 1.5),
    ],
)
def test_the_bound_is_the_largest_of_three(changed, dtype, limits, name, seconds):
    least = bound(figures(**changed), CHIP, dtype)
    assert least == Bound(*limits)
    assert (least.name, least.seconds) == (name, seconds)


def test_figures_of_a_program():
    m, k, n = 16, 32, 64

    def f(a, b):
        return jnp.tanh(a @ b) + 1

    shapes = jax.ShapeDtypeStruct((m, k), "f"), jax.ShapeDtypeStruct((k, n), "f")
    made = figures_of(jax.jit(f).lower(*shapes).compile())
    assert made.memory["arguments"] == 4 * (m * k + k * n)
    assert made.memory["outputs"] == 4 * m * n
    assert made.operations >= 2 * m * k * n
    assert made.moved >= 4 * (m * k + k * n + m * n)
    assert made.collectives == {} and made.host == () and made.cycles is None


def test_collectives_of_a_program():
    count = devices(4)
    mesh = jax.make_mesh((count,), ("x",), axis_types=(AxisType.Auto,))

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=P("x"), out_specs=P(), check_vma=False)
    def f(x):
        x = jax.lax.all_to_all(x, "x", 1, 0, tiled=True)
        return jax.lax.all_gather(jax.lax.psum(x, "x"), "x")

    compiled = f.lower(jax.ShapeDtypeStruct((8, 12), "f")).compile()
    part = 8 * 12  # bytes of a fourth
    assert figures_of(compiled).collectives == {
        "all-to-all": Collectives(1, part * 3 // 4),
        "all-reduce": Collectives(1, 2 * part * 3 // 4),
        "all-gather": Collectives(1, 4 * part * 3 // 4),
    }


def with_numpy(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def in_a_loop(x):
    return jax.lax.scan(lambda x, _: (with_numpy(x), None), x, length=3)[0]


@pytest.mark.parametrize("f", [with_numpy, in_a_loop])
def test_what_waits_for_the_host_is_found(f):
    made = figures_of(jax.jit(f).lower(jnp.ones(3)).compile())
    assert len(made.host) == 1
