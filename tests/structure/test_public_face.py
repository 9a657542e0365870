"""The names of `coded_jax` itself: all there, documented, and free to import."""

import ast
import inspect
import pathlib
import subprocess
import sys

import coded_jax

PACKAGES = {"codes", "data", "models"}


def run_python(program):
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_loads_nothing_else_and_touches_no_device():
    # Not even JAX, which alone takes a second.
    run_python(
        "import sys, coded_jax; dir(coded_jax); coded_jax.__version__; "
        "assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    )
    run_python(
        "from coded_jax import *; from jax._src import xla_bridge; "
        "assert protect and not xla_bridge.backends_are_initialized()"
    )


def test_every_name_is_there_and_says_how_to_use_it():
    assert coded_jax.__all__ == sorted(coded_jax.__all__)
    assert set(coded_jax.__all__) <= set(dir(coded_jax))
    for name in coded_jax.__all__:
        value = getattr(coded_jax, name)
        if name == "__version__" or name in PACKAGES:
            continue
        assert value.__name__ == name and value.__module__.startswith("coded_jax.")
        documentation = inspect.getdoc(value)
        first, _, rest = documentation.partition("\n")
        assert first.endswith("."), f"{name}: {first}"
        if inspect.isfunction(value):
            assert "Args:" in rest, name
            for parameter in inspect.signature(value).parameters:
                assert f"{parameter}:" in rest or f"{parameter}," in rest, (
                    f"{name}: nothing of {parameter}"
                )


def test_type_checkers_see_the_same_names():
    """Those of the block that is never run are those that are loaded on demand."""
    tree = ast.parse(pathlib.Path(coded_jax.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    lazy = {name: f"coded_jax.{path}" for name, path in coded_jax._MODULES.items()}
    assert seen == lazy | dict.fromkeys(PACKAGES, "coded_jax")
    assert set(seen) | {"__version__"} == set(coded_jax.__all__)


def test_what_is_no_name_is_an_attribute_error():
    assert not hasattr(coded_jax, "absent")


def test_a_worker_imports_what_it_computes_with():
    """One that has died is to be back soon: no training, no checkpoints, no checks."""
    heavy = {"optax", "orbax", "coded_jax.runs", "coded_jax.training"}
    run_python(
        f"import sys, coded_jax.service.parts; assert not {heavy!r} & {{*sys.modules}}"
    )
