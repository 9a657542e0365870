"""Training: resumes bit for bit, stops on NaN, keeps the best epoch."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from coded_jax.training import checkpoints, loop, optimizers
from coded_jax.training.signals import stop_requests

EXAMPLES, BATCH = 40, 8
EPOCH = EXAMPLES // BATCH


@pytest.fixture(autouse=True)
def every_epoch_is_saved(monkeypatch):
    """Epochs of milliseconds are saved as longer ones are."""
    monkeypatch.setattr(loop, "EPOCH_SAVE_SECONDS", 0.0)


class Recorder(loop.Observer):
    """Observes a fit, and does something at a step."""

    def __init__(self, at=None, action=None):
        self.started, self.logged = [], []
        self.at, self.action = at, action

    def start(self, step):
        self.started.append(step)

    def log(self, step, metrics):
        self.logged.append((step, metrics))
        if self.at is not None and step >= self.at:
            self.action()


def regression(scores=None, loss=None):
    """A small noisy linear regression; `scores` are handed out one per epoch."""
    remaining = iter(scores or [])

    def default_loss(params, frozen, batch, key):
        noise = jax.random.normal(key, batch["y"].shape)
        error = batch["x"] @ params["w"] * frozen - batch["y"] + 0.1 * noise
        return jnp.square(error).mean(), {}

    def score(params):
        own = -float(jnp.abs(params["w"] - 1.0).sum())
        return {loop.SCORE: next(remaining) if scores else own}

    return loop.Task(
        init=lambda key: {"w": jax.random.normal(key, (3,))},
        loss=loss or default_loss,
        score=score,
        optimizer=optimizers.adam(optax.cosine_decay_schedule(0.1, 200), 1e-5),
    )


def arrays():
    x = np.random.default_rng(0).normal(size=(EXAMPLES, 3)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.asarray(x.sum(1))}


def fit(directory, task=None, observer=None, epochs=6.4, **options):
    return loop.fit(
        task or regression(),
        jnp.asarray(1.0),
        arrays(),
        jax.random.key(3),
        optimizers.Regime(epochs, BATCH),
        directory=directory,
        observer=observer,
        **options,
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def last_state(directory):
    task, key = regression(), jax.random.key(0)
    like = jax.eval_shape(lambda: loop.initial_state(task.init, task.optimizer, key))
    return checkpoints.restore(directory, like)


def test_learns_and_counts_its_steps():
    observer = Recorder()
    fitted = fit(None, observer=observer, epochs=40)
    np.testing.assert_allclose(fitted.params["w"], 1.0, atol=0.1)
    assert fitted.steps == 40 * EPOCH
    scored = [step for step, m in observer.logged if "validation_accuracy" in m]
    assert scored == list(range(EPOCH, 40 * EPOCH + 1, EPOCH))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing stopped: its outcome, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    return fit(folder), last_state(folder)


@pytest.mark.parametrize("crash_at, count", [(1, 1), (16, 1), (9, 2)])
def test_crash_and_resume_is_bit_for_bit(tmp_path, monkeypatch, whole, crash_at, count):
    """Of single steps, and of calls of several steps."""

    def crash():
        raise RuntimeError("crash")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="crash"):
        patch.setattr(loop, "LOG_STEPS", 2)
        patch.setattr(loop, "SAVE_SECONDS", 0.0)  # a save after every step
        patch.setattr(loop, "steps_per_call", lambda: count)
        fit(tmp_path, observer=Recorder(crash_at, crash))
    second = Recorder()
    resumed = fit(tmp_path, observer=second)
    assert second.started[0] >= crash_at - 2
    outcome, checkpoint = whole
    assert_same(resumed.params, outcome.params)
    assert_same(last_state(tmp_path).state, checkpoint.state)
    # A finished one trains no further.
    third = Recorder()
    assert_same(fit(tmp_path, observer=third).params, outcome.params)
    assert third.started == [outcome.steps] and third.logged == []


def test_a_fit_compiles_its_step_once():
    before = loop.train_steps._cache_size(), loop.keep_better._cache_size()
    task = regression()
    # Arrays made of plain numbers have weak types, which the first steps lose.
    weak = lambda key: {"w": jnp.full((3,), 0.5), "unused": jnp.asarray(1.0)}
    assert jax.eval_shape(weak, jax.random.key(0))["w"].weak_type
    fit(None, task._replace(init=weak))
    after = loop.train_steps._cache_size(), loop.keep_better._cache_size()
    assert after == (before[0] + 1, before[1] + 1)


def test_signal_saves_and_stops(tmp_path, whole):
    number = signal.SIGINT
    # A shell starts background jobs with SIGINT ignored, which `fit` would respect.
    inherited = signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    observer = Recorder(EPOCH, lambda: os.kill(os.getpid(), number))
    stopped = pytest.raises(loop.Interrupted, match=r"stopped at step \d+ of 32")
    try:
        with stop_requests() as stop, stopped:
            fit(tmp_path / "cut", observer=observer, stop=stop)
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, inherited)
    assert checkpoints.steps(tmp_path / "cut")
    assert_same(fit(tmp_path / "cut").params, whole[0].params)


def test_non_finite_loss_stops_at_its_step_and_keeps_the_checkpoint(tmp_path):
    bad_step = 2 * EPOCH + 3

    def loss(params, frozen, batch, key):
        good = jnp.square(batch["x"] @ params["w"] - batch["y"])
        # Whether this step goes wrong is read off the key, as the step itself is not
        # an argument of a loss.
        data = jax.random.key_data(key)
        return jnp.where((data == bad_key).all(), jnp.nan, good.mean()), {}

    step_key = jax.random.split(jax.random.key(3), 3)[2]
    bad_key = jax.random.key_data(jax.random.fold_in(step_key, bad_step))
    expected = rf"loss: not finite at step {bad_step}; .*step {2 * EPOCH}, is kept in"
    with pytest.raises(loop.NonFiniteError, match=expected):
        fit(tmp_path, regression(loss=loss))
    kept = last_state(tmp_path)
    assert kept.step == 2 * EPOCH
    assert np.isfinite(kept.state[0].params["w"]).all()


def test_non_finite_parameters_are_not_saved(tmp_path):
    @jax.custom_vjp
    def poison(w):
        return w

    poison.defvjp(lambda w: (w, None), lambda _, g: (g * jnp.inf,))

    def loss(params, frozen, batch, key):
        return jnp.square(batch["x"] @ poison(params["w"])).mean(), {}

    with pytest.raises(loop.NonFiniteError, match="no checkpoint yet"):
        fit(tmp_path, regression(loss=loss))
    assert checkpoints.steps(tmp_path) == []


def test_best_epoch_wins():
    best = fit(None, regression([0.1, 0.9, 0.3, 0.9, 0.2]), epochs=5)
    upto = fit(None, regression([0.1, 0.2, 0.3, 0.9]), epochs=4)
    assert best.score == pytest.approx(0.9)
    # Of equal scores the later one, so exactly what four epochs end with.
    assert_same(best.params, upto.params)


def test_the_best_epoch_before_a_kill_stays_the_best(tmp_path):
    """Catches a resume that forgets the best score, so that any later epoch wins."""

    def kill():
        raise RuntimeError("killed")

    first = Recorder(2 * EPOCH, kill)
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path, regression([0.9, 0.1]), first, epochs=4)
    best = fit(None, regression([0.9]), epochs=1).params
    second = Recorder()
    resumed = fit(tmp_path, regression([0.1, 0.3, 0.2]), second, epochs=4)
    assert second.started == [EPOCH]
    assert resumed.score == pytest.approx(0.9)
    assert_same(resumed.params, best)


def test_epochs_visit_every_example_once():
    seen = []

    def loss(params, frozen, batch, key):
        jax.debug.callback(lambda y: seen.extend(np.asarray(y).tolist()), batch["y"])
        return jnp.square(params["w"]).mean(), {}

    fit(None, regression(loss=loss), epochs=2)
    jax.effects_barrier()
    y = np.sort(np.asarray(arrays()["y"]))
    np.testing.assert_array_equal(np.sort(seen[:EXAMPLES]), y)
    np.testing.assert_array_equal(np.sort(seen[EXAMPLES:]), y)
    assert seen[:EXAMPLES] != seen[EXAMPLES:]
