"""Training one code with several seeds: together on an accelerator, else in turn."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from coded_jax.devices import processes
from coded_jax.runs.workdir import CHECKPOINTS, checkpoint_folder, phase_of
from coded_jax.training import checkpoints
from coded_jax.training.loop import Fitted, Task, seed_of
from coded_jax.training.steps import initial_state, steps_per_call


def fit_seeds(
    task: Task,
    keys: jax.Array,
    folder: Path,
    name: str,
    fit: Callable[[str, jax.Array], Fitted],
) -> list[Fitted]:
    """Trains a code once for every one of `keys`, each a phase with its checkpoints.

    On an accelerator all seeds without a checkpoint are trained as one `vmap`, whose
    checkpoint is then handed out to them. On a CPU they are trained one after the
    other: there convolutions with a kernel for each seed are 35 to 45 times as slow (2
    cores). Either way a killed training goes on from its last checkpoint.

    Args:
      task: what to train.
      keys: `[S]`.
      folder: the workdir.
      name: of the code, see `workdir.phase_of`.
      fit: `(phase, key or keys) -> Fitted`, by `training.fit` with the phase's
        checkpoints in `folder`.
    """
    phases = [phase_of(name, seed) for seed in range(len(keys))]
    if together := _together(folder, name, phases):
        first, last = together
        joint = f"{name}_{first}-{last}"
        fit(joint, keys[first : last + 1])
        _hand_out(task, keys[first : last + 1], folder, joint, phases[first:])
    return [fit(phase, key) for phase, key in zip(phases, keys, strict=True)]


def _together(folder: Path, name: str, phases: list[str]) -> tuple[int, int] | None:
    """First and last of the seeds that are trained together; None if there are none."""
    # A former process may have been killed on the way.
    for path in (folder / CHECKPOINTS).glob(f"{name}_*-*"):
        first, _, last = path.name.removeprefix(f"{name}_").partition("-")
        if int(last) < len(phases):  # else it was for more seeds
            return int(first), int(last)
    done = [bool(checkpoints.steps(checkpoint_folder(folder, p))) for p in phases]
    first = max((i + 1 for i, each in enumerate(done) if each), default=0)
    alone = len(phases) - first < 2
    return None if alone or steps_per_call() == 1 else (first, len(phases) - 1)


def _hand_out(
    task: Task, keys: jax.Array, folder: Path, joint: str, phases: list[str]
) -> None:
    """Gives every seed its part of the last checkpoint of all, and removes that one."""
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
        handed = source.with_name(f".{joint}")  # it is no longer whole
        shutil.rmtree(handed, ignore_errors=True)
        source.rename(handed)
        shutil.rmtree(handed)
    processes.any_process(False)  # the others wait
