r"""Runs one experiment: trains a base model and a code, tries every erasure pattern.

    python experiments/run.py --flagfile=experiments/flags/quickstart.flags

Run the same command again to resume. Later flags win, so a variant of a flagfile is

    python experiments/run.py --flagfile=experiments/flags/table5_k2_r1.flags \
        --recipe=systematic --workdir=runs/table5_k2_r1_systematic
"""

from __future__ import annotations

import shlex
import sys

from absl import app, flags, logging
from rich.console import Console

from coded_jax import (
    codes,
    config,
    data,
    display,
    distributed,
    experiment,
    models,
    startup,
    training,
)

DEFAULT = config.Config()

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run", required=True)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS data; TFDS_DATA_DIR if not given"
)
flags.DEFINE_integer("seed", DEFAULT.seed, "fixes the run")
flags.DEFINE_string("dataset", DEFAULT.dataset, f"one of {', '.join(data.DATASETS)}")
flags.DEFINE_string(
    "base_model", DEFAULT.base_model, f"one of {', '.join(models.BASE_MODELS)}"
)
flags.DEFINE_integer("k", DEFAULT.k, "data pieces")
flags.DEFINE_integer("r", DEFAULT.r, "parity pieces")
flags.DEFINE_integer("l", DEFAULT.l, "most results lost in training; r if not given")
flags.DEFINE_string(
    "grid", None, "rows x columns of pieces, as 2x2; k x 1 if not given"
)
flags.DEFINE_enum("recipe", DEFAULT.recipe, config.RECIPES, "decoder and schedule")
flags.DEFINE_enum("encoder", DEFAULT.encoder, codes.NETWORKS, "its network")
flags.DEFINE_enum("decoder", DEFAULT.decoder, codes.NETWORKS, "its network")
flags.DEFINE_integer("encoder_width", None, "of hidden layers; its own if not given")
flags.DEFINE_integer("decoder_width", None, "of hidden layers; its own if not given")
flags.DEFINE_list(
    "dilations", list(DEFAULT.dilations), "of the 3x3 layers of conv nets"
)
flags.DEFINE_enum(
    "decoder_channels",
    None,
    codes.DECODER_CHANNELS,
    "decode feature channels together or apart; joint for mlp, independent for conv",
)
flags.DEFINE_float("base_epochs", DEFAULT.base_epochs, "epochs of the base model")
flags.DEFINE_float("epochs", DEFAULT.epochs, "epochs of the code")
flags.DEFINE_integer("batch_size", DEFAULT.batch_size, "examples per step")
flags.DEFINE_float("learning_rate", DEFAULT.learning_rate, "of Adam")
flags.DEFINE_float("weight_decay", DEFAULT.weight_decay, "L2 factor")
flags.DEFINE_enum(
    "precision",
    DEFAULT.precision,
    config.PRECISIONS,
    "that encoder, F_Conv and decoder compute in",
)
DEVICES = flags.DEFINE_integer(
    "devices", None, "how many to use, all if not given; a CPU stands for as many"
)
MESH = flags.DEFINE_string(
    "mesh", None, "devices along piece x data, as 3x2; a piece each if there are enough"
)
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "folder that keeps compiled programs, ~/.cache/coded_jax if not given; '' for none",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "for several processes: host:port of process 0, or auto on TPU pods and Slurm",
)
PROCESSES = flags.DEFINE_integer("processes", None, "how many processes there are")
PROCESS = flags.DEFINE_integer("process", None, "number of this one, from 0")


def integers(name: str, texts: list[str]) -> tuple[int, ...]:
    try:
        return tuple(map(int, texts))
    except ValueError:
        raise ValueError(f"{name}: {texts} given, integers accepted") from None


def config_from_flags() -> config.Config:
    values = {name: flags.FLAGS[name].value for name in DEFAULT.__dict__}
    values["dilations"] = integers("dilations", values["dilations"])
    if values["grid"] is not None:
        values["grid"] = integers("grid", values["grid"].split("x"))
    return config.Config(**values)


def mesh_from_flags() -> tuple[int, int] | None:
    if MESH.value is None:
        return None
    sizes = MESH.value.split("x")
    if len(sizes) != 2 or not all(size.isdecimal() for size in sizes):
        raise ValueError(f"mesh: {MESH.value!r} given, piece x data as 3x2 accepted")
    return int(sizes[0]), int(sizes[1])


def start_jax() -> None:
    """Before the first device is touched."""
    if COORDINATOR.value is not None:
        distributed.start(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    elif PROCESSES.value is not None or PROCESS.value is not None:
        raise ValueError("coordinator: not given, 'host:port' or 'auto' accepted")
    if DEVICES.value is not None:
        startup.offer_cpu_devices(-(-DEVICES.value // (PROCESSES.value or 1)))
    startup.keep_memory()
    startup.keep_compilations(COMPILATION_CACHE.value)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"error: arguments: {argv[1:]} given, only --flags accepted")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # no notes on accelerators not found
    command = shlex.join(["python", *sys.argv])
    try:
        problem = prepared = None
        try:
            settings = config_from_flags()
            mesh = mesh_from_flags()
            start_jax()
            prepared = experiment.prepare(
                settings, WORKDIR.value, DATA_DIR.value, DEVICES.value, mesh
            )
        except (ValueError, OSError, ImportError) as error:
            problem = error
        # Asked in any case: the others wait for the answer.
        if distributed.any_process(prepared is None):
            sys.exit(f"error: {problem or 'another process could not start'}")
        results = experiment.run(prepared, command=command)
    except (training.Interrupted, KeyboardInterrupt) as stop:
        message = str(stop) or "stopped"
        print(f"{message}; the same command goes on from there", file=sys.stderr)
        sys.exit(130)
    except (training.NonFiniteError, OSError) as error:
        sys.exit(f"error: {error}")

    if not distributed.is_lead():
        return
    console = Console()
    try:
        display.plot(prepared.folder, results)
    except ImportError as error:
        console.print(str(error))
    console.print(display.report(results), highlight=False)
    seconds = results["timing"]["seconds"]
    times = ", ".join(f"{phase} {value:.0f}" for phase, value in seconds.items())
    console.print(f"seconds: {times}", highlight=False)
    console.print(f"all of it is in {WORKDIR.value}", highlight=False)


def parse_flags(argv: list[str]) -> list[str]:
    """Like absl's own parser, but an error is one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
