"""Meshes of described machines: every chip of a TPU takes part, and it compiles."""

import pytest

from coded_jax.devices.meshes import make_mesh
from coded_jax.studies import programs
from tests.aot.design import SIZES, Case
from tests.aot.expectations import collectives_of, compiled
from tests.aot.targets import TARGETS, TPUS, chip_of_target, devices_of

pytestmark = pytest.mark.aot


@pytest.mark.parametrize("target", TARGETS)
def test_devices(target):
    devices = devices_of(target)
    assert len(devices) == TARGETS[target]
    assert {device.platform == "tpu" for device in devices} == {target in TPUS}


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
    accepted = "one of all 8 chips of the TPU accepted: 1x8, 2x4, 4x2, 8x1"
    with pytest.raises(ValueError) as error:
        make_mesh(6, shape=(6, 1), available=devices_of(target))
    assert str(error.value) == f"mesh: 6x1 given, {accepted}"


@pytest.mark.parametrize("n", [3, 5, 6])
def test_a_mesh_over_hosts_has_devices_of_all_of_them(n):
    mesh = make_mesh(n, available=devices_of("v5e:4x4"))
    assert mesh.size == 16
    assert {device.process_index for device in mesh.devices.flat} == {0, 1, 2, 3}
