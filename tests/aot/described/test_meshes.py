"""Meshes of described machines: every chip of a TPU takes part, and it compiles."""

import jax
import pytest
from jax.sharding import SingleDeviceSharding

from coded_jax.aot import programs, topologies
from coded_jax.aot.compiled import figures_of
from coded_jax.devices.meshes import make_mesh
from tests.aot.described.design import SIZES, Case
from tests.aot.described.expectations import collectives_of, compiled
from tests.aot.described.targets import TARGETS, TPUS, chip_of_target, devices_of

pytestmark = [pytest.mark.aot, pytest.mark.brief]


@pytest.mark.parametrize("target", TARGETS)
def test_devices(target):
    devices = devices_of(target)
    assert len(devices) == TARGETS[target]
    assert {device.platform == "tpu" for device in devices} == {target in TPUS}


@pytest.mark.parametrize("target", ["v5e:3x3", "v5e:1x7", "v5p:5x5x5"])
def test_topologies_that_there_are_not_are_refused_in_one_line(target):
    devices_of("v5e:1x1")  # skips where the compiler is missing
    with pytest.raises(ValueError) as error:
        topologies.describe(target)
    name = target.split(":")[0]
    accepted = f"a topology of {name} that its compiler knows accepted"
    assert str(error.value).startswith(f"target: {target!r} given, {accepted} (")
    assert "\n" not in str(error.value)


def test_what_waits_for_the_host_would_be_seen():
    """So that to find nothing of it in other programs says something. (For a GPU that
    is not here, JAX does not even lower it.)"""

    def step(x, _):
        jax.debug.callback(print, x[0])
        return x + 1, None

    device = devices_of("v5e:2x4")[0]
    x = jax.ShapeDtypeStruct((8,), "f", sharding=SingleDeviceSharding(device))
    loop = jax.jit(lambda x: jax.lax.scan(step, x, length=3)[0])
    program = loop.lower(x).compile(topologies.compiler_options(device))
    assert figures_of(program).host


@pytest.mark.parametrize("target", ["v5e:2x4", "v6e:2x4"])
def test_six_pieces_on_eight_chips(target):
    """Two of the chips have none. A mesh of six has been refused by the compiler."""
    config = Case(target, "lenet5", "mlp", (4, 2), "float32").config
    mesh = make_mesh(config.n, shape=(8, 1), available=devices_of(target))
    made = programs.Subject(config, SIZES["lenet5"], mesh)
    kinds = collectives_of(compiled(made.inference(24)), chip_of_target(target))
    assert kinds == {"all-to-all": 2, "all-gather": 1}


@pytest.mark.parametrize("target", ["v5e:2x4", "v6e:2x4", "v4:2x2x2"])
def test_some_of_the_chips_are_refused(target):
    accepted = "one of 1x8, 2x4, 4x2, 8x1, all 8 chips of the TPU, accepted"
    with pytest.raises(ValueError) as error:
        make_mesh(6, shape=(6, 1), available=devices_of(target))
    assert str(error.value) == f"mesh: '6x1' given, {accepted}"


@pytest.mark.parametrize("n", [3, 5, 6])
def test_a_mesh_over_hosts_has_devices_of_all_of_them(n):
    mesh = make_mesh(n, available=devices_of("v5e:4x4"))
    assert mesh.size == 16
    assert {device.process_index for device in mesh.devices.flat} == {0, 1, 2, 3}
