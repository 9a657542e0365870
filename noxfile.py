"""The tests on every set of versions that is supported, and the documentation.

nox              the whole suite on Python 3.11, on 3.13 with the newest jax, and with
                 Colab's versions
nox -s nightly   all that is not in the README's test command: the long tests on Python
                 3.11, then `aot`, `docs` and `mutants`
nox -t smoke     what depends on versions most, in about two minutes each
nox -s aot       programs compiled for TPUs and GPUs that are not here, by the compilers
                 of JAX's version (downloads of about 1 GB); `-- -m brief` for some
nox -s aot-colab some of them by the compiler of Colab's versions, for one chip
nox -s docs      the documentation into site/, with every warning an error
nox -s links     whether every link of it to elsewhere is there
nox -s mutants   whether the tests notice faults in core lines (`tests/mutants`)
"""

import nox

nox.options.default_venv_backend = "venv"
nox.options.tags = ["tests"]
nox.options.reuse_venv = "yes"

COLAB = ["jax==0.7.2", "flax==0.11.2", "numpy==2.1.*"]
VERSIONS = {"3.11": ("3.11", []), "3.13": ("3.13", []), "colab": ("3.13", COLAB)}

# A small run from end to end, loaded and served; several devices, checkpoints, jaxprs,
# operations counted from them, networks that flags name, one compilation for all
# patterns, exported files, tables of stored results.
SMOKE = [
    "tests/runs/test_experiment.py::test_results_have_the_documented_layout",
    "tests/runs/test_experiment.py::test_loaded_model_reproduces_the_results",
    "tests/service/web/test_app.py::test_predict",
    "tests/devices/test_placement.py::test_one_mask_for_all_images",
    "tests/devices/test_placement.py::test_one_all_to_all_each_way",
    "tests/training/test_checkpoints.py::test_every_leaf_is_restored_bit_for_bit",
    "tests/splitting/test_receptive_field.py",
    "tests/inference/test_operations.py",
    "tests/inference/test_costs.py",
    "tests/experiments/test_tables.py",
    "tests/experiments/test_network_flags.py",
    "tests/inference/test_pipeline.py::test_one_compilation_serves_every_pattern",
    "tests/runs/test_export.py::test_file_gives_what_infer_gives",
]

# In place of what `tests/conftest.py` sets, to compile in less time.
AS_USERS_RUN_JAX = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}


def install(session: nox.Session, *packages: str) -> None:
    """The newest that is accepted, also where an older one is installed already."""
    session.install("--upgrade", "--upgrade-strategy=eager", "-e", *packages)


def define(name: str, python: str, pins: list[str]) -> None:
    """Defines the sessions of one set of versions."""

    @nox.session(name=f"tests-{name}", python=python, tags=["tests"])
    def tests(session: nox.Session) -> None:
        install(session, ".[test]", *pins)
        session.run("python", "-m", "pytest", "-m", "", *session.posargs)

    @nox.session(name=f"smoke-{name}", python=python, tags=["smoke"])
    def smoke(session: nox.Session) -> None:
        install(session, ".[smoke]", *pins)
        chosen = session.posargs or SMOKE
        session.run("python", "-m", "pytest", *chosen, env=AS_USERS_RUN_JAX)


for name, versions in VERSIONS.items():
    define(name, *versions)


def compile_programs(session: nox.Session, *targets: str) -> None:
    """Runs the tests that compile, once all compilers that they need are there."""
    environment = {"JAX_PLATFORMS": "cpu", **AS_USERS_RUN_JAX}
    described = "; ".join(f"describe({target!r})" for target in targets)
    ready = f"from coded_jax.aot.topologies import describe; {described}"
    session.run("python", "-c", ready, env=environment)
    # By tests, not files: one program can take a minute to compile, another a second.
    chosen = ("-m", "aot", "--dist=worksteal", "-rs", *session.posargs)
    session.run("python", "-m", "pytest", *chosen, "tests/aot", env=environment)


@nox.session
def aot(session: nox.Session) -> None:
    install(session, ".[smoke,aot-tpu,aot-cuda]")
    compile_programs(session, "v5e:1x1", "h100:1")


@nox.session(name="aot-colab", python="3.13")
def aot_colab(session: nox.Session) -> None:
    install(session, ".[smoke,aot-tpu]", *COLAB)
    session.posargs.extend(["-k", "v5e:1x1"])  # its TPU is one chip
    compile_programs(session, "v5e:1x1")


@nox.session(python="3.11")
def nightly(session: nox.Session) -> None:
    install(session, ".[test]")
    session.run("python", "-m", "pytest", "-m", "long", *session.posargs)
    for name in ("aot", "docs", "mutants"):
        session.notify(name)


@nox.session(tags=["docs"])
def docs(session: nox.Session) -> None:
    session.install("-e", ".[docs]")
    options = ("-W", "--keep-going", "-n", "-E", "-q")
    session.run("python", "-m", "sphinx", *options, "docs", "site")


@nox.session
def links(session: nox.Session) -> None:
    session.install("-e", ".[docs]")
    session.run("python", "-m", "sphinx", "-b", "linkcheck", "-q", "docs", ".nox/links")


@nox.session
def mutants(session: nox.Session) -> None:
    install(session, ".[test]")
    session.run("python", "tests/mutants/run.py", *session.posargs)
