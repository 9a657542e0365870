"""Which parameters of a finished run are loaded."""

import jax
import jax.numpy as jnp
import pytest

from coded_jax.runs import workdir
from coded_jax.runs.config import Config
from coded_jax.runs.load import best_params
from coded_jax.runs.phases import regime_of
from coded_jax.training import checkpoints
from coded_jax.training.steps import initial_state


def test_parameters_of_the_best_epoch_are_loaded_not_of_the_last(tmp_path):
    config, init = Config(), lambda key: {"w": jnp.zeros(2)}
    regime = regime_of(config, "base")
    optimizer = regime.optimizer(examples=1)
    state, best = initial_state(init, optimizer, jax.random.key(0))
    state = state._replace(params={"w": jnp.ones(2)})
    folder = workdir.checkpoint_folder(tmp_path, "base")
    checkpoints.save(folder, 3, (state, best))
    load = lambda steps: best_params(
        tmp_path, {"steps": {"base": steps}}, "base", regime, init
    )
    assert load(3)["w"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="^workdir: the last checkpoint of 'base'"):
        load(4)
