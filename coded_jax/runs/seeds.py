"""Training one code with several seeds: together on an accelerator, else in turn."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from coded_jax.devices import processes
from coded_jax.runs.workdir import CHECKPOINTS, checkpoint_folder, phase_of
from coded_jax.training import checkpoints
from coded_jax.training.loop import Task, seed_of
from coded_jax.training.steps import MAPS_SEEDS, initial_state, steps_per_call


def trainings(
    task: Task, keys: jax.Array, folder: Path | None, name: str
) -> Iterator[tuple[str, jax.Array]]:
    """Yields the trainings of a code with S seeds, each to be done before the next.

    On an accelerator all seeds without a checkpoint are trained as one `vmap`, whose
    checkpoint is then divided among them, so that each goes on from its end. On a CPU
    they are trained one after the other: there convolutions with a kernel for each seed
    are 35 to 45 times as slow (2 cores). So they are where JAX is older than 0.8, see
    `steps.MAPS_SEEDS`, and where nothing is kept.

    Args:
      task: what is trained.
      keys: `[S]`, one of each seed.
      folder: of the checkpoints; None if nothing is kept.
      name: of the code, see `workdir.phase_of`.

    Yields:
      The name of the phase, and its key, or the keys of several seeds.
    """
    phases = [phase_of(name, seed) for seed in range(len(keys))]
    if folder and (first_and_last := _trained_together(folder, name, phases)):
        first, last = first_and_last
        joint = f"{name}_{first}-{last}"
        yield joint, keys[first : last + 1]
        _divide(task, keys[first : last + 1], folder, joint, phases[first:])
    yield from zip(phases, keys, strict=True)


def _trained_together(
    folder: Path, name: str, phases: list[str]
) -> tuple[int, int] | None:
    """Returns the first and the last of the seeds that are trained as one `vmap`.

    It is None if every seed is trained alone.
    """
    # A killed process may have left a checkpoint of such a training.
    for path in (folder / CHECKPOINTS).glob(f"{name}_*-*"):
        first, _, last = path.name.removeprefix(f"{name}_").partition("-")
        if int(last) < len(phases):  # else it was for more seeds
            return int(first), int(last)
    begun = [
        i
        for i, phase in enumerate(phases)
        if checkpoints.steps(checkpoint_folder(folder, phase))
    ]
    new = max(begun, default=-1) + 1  # the first of the seeds without a checkpoint
    alone = len(phases) - new < 2 or steps_per_call() == 1 or not MAPS_SEEDS
    return None if alone else (new, len(phases) - 1)


def _divide(
    task: Task, keys: jax.Array, folder: Path, joint: str, phases: list[str]
) -> None:
    """Saves the part of each seed as its checkpoint, and removes the joint one."""
    fresh = jax.vmap(functools.partial(initial_state, task.init, task.optimizer))
    source = checkpoint_folder(folder, joint)
    restored = checkpoints.restore(source, jax.eval_shape(fresh, keys))
    if restored is None:
        raise OSError(f"cannot read the checkpoint of {joint} in {source}")
    state = jax.tree.map(np.asarray, restored.state)
    for i in range(len(keys)):
        checkpoints.save(
            checkpoint_folder(folder, phases[i]),
            restored.step,
            seed_of(state, i),
            seconds=restored.seconds / len(keys),
        )
    if processes.is_lead():
        # Renamed first: a checkpoint that is partly removed must not look finished.
        removed = source.with_name(f".{joint}")
        shutil.rmtree(removed, ignore_errors=True)
        source.rename(removed)
        shutil.rmtree(removed)
    processes.any_process(False)  # the others wait
