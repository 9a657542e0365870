"""The benchmark: equal jobs, honest counts, and a run of it in small."""

import dataclasses
import functools
import json

import benchmark
import jax
import numpy as np
import pytest
from benchmarks import machine, measuring, subjects, tables
from benchmarks.measuring import Settings
from benchmarks.subjects import Prepared
from benchmarks.tables import CODE, COMPILE, EAGER, ONE_LOST, OURS

from coded_jax.codes import erasures
from coded_jax.inference import pipeline
from coded_jax.runs.build import uncoded_pipeline
from coded_jax.training.losses import base_losses, coded_losses
from tests.scripts import run_script

BATCH = 4
SUBJECTS = [
    x if x == "resnet18" else pytest.param(x, marks=pytest.mark.long)
    for x in subjects.CONFIGS
]


@functools.cache
def subject(name):
    """A subject with random parameters, and narrower where that makes it faster."""
    config = subjects.CONFIGS[name]
    if config.encoder == "conv":
        config = dataclasses.replace(config, encoder_width=4, decoder_width=8)
    if config.base_width < 1:
        config = dataclasses.replace(config, base_width=0.0625)
    return subjects.make_subject(name, 16, config=config)


def near(theirs, ours):
    """As near as rounding lets them be, on the scale of the largest of ours."""
    ours = np.asarray(ours)
    scale = np.abs(ours).max()
    assert scale > 0
    np.testing.assert_allclose(theirs.detach().numpy(), ours, rtol=0, atol=3e-5 * scale)


@pytest.mark.parametrize("name", SUBJECTS)
def test_pytorch_infers_and_trains_the_same(name):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_jobs

    s = subject(name)
    split, model = s.dataset.train, torch_jobs.model_of(s)
    batch = {"images": split.images[:BATCH], "labels": split.labels[:BATCH]}
    images = torch.from_numpy(batch["images"])
    infer = jax.jit(pipeline.infer, static_argnums=0)
    for lost in (), (0,), (2,):
        available = erasures.available(lost, s.pipeline.n)
        logits = infer(s.pipeline, s.frozen, s.params, batch["images"], available)
        given = images, torch.from_numpy(available.T)
        near(model.eval().infer(*given), logits)
        if lost != (0,):  # what is decoded of all results is what arrived
            near(model.logits(*given), logits)

    available = np.ones((s.pipeline.n, BATCH), bool)
    available[0, 1:] = available[-1, 0] = False

    @jax.jit
    def code_loss(params):
        return coded_losses(s.pipeline, params, s.frozen, batch, available).mean()

    loss, gradient = jax.value_and_grad(code_loss)(s.params)
    with torch.no_grad():
        targets = model.train().targets(images)
    value = model.loss(images, torch.from_numpy(available.T), targets)
    near(value, loss)
    value.backward()
    # In PyTorch's order of axes, as if they were parameters.
    expected = torch_jobs.model_of(s._replace(params=gradient)).codes.parameters()
    for own, wanted in zip(model.codes.parameters(), expected, strict=True):
        near(own.grad, wanted.detach())
    assert all(p.grad is None for p in model.network.parameters())

    uncoded = uncoded_pipeline(s.config, s.pipeline.examples)
    loss, updated = base_losses(uncoded, s.frozen, batch)
    network = model.network.train()
    near(network.loss(images, torch.from_numpy(batch["labels"]).long()), loss.mean())
    if updated:  # the first batch norm's running mean, of momentum 0.9
        norms = (x for x in network.modules() if isinstance(x, torch.nn.BatchNorm2d))
        near(next(norms).running_mean, jax.tree.leaves(updated["block_1"])[0])


def test_jobs_take_turns_and_slow_ones_have_fewer_rounds(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])

    def job(name, seconds, calls):
        order.append(name * calls)
        now[0] += calls * seconds

    prepared = lambda name, seconds, steps=1: Prepared(
        functools.partial(job, name, seconds), 3.0, steps
    )
    jobs = {"a": prepared("a", 1), "b": prepared("b", 0.25, 5)}
    rows = measuring.time_jobs(jobs, seconds=4, rounds=4)
    # One call, and one to wake the threads before several.
    assert order[-12:] == ["b", "bbbb", "a", "a", "b", "bbbb"] * 2
    row = {"ms": 1e3, "quartiles_ms": [1e3, 1e3], "fastest_ms": 1e3}
    assert rows["a"] == {**row, "rounds": 4, "calls": 1, "compile_s": 3.0}
    row = {"ms": 50.0, "quartiles_ms": [50.0, 50.0], "fastest_ms": 50.0}  # of a step
    assert rows["b"] == {**row, "rounds": 4, "calls": 20, "compile_s": 3.0}
    slow = {"slow": prepared("s", 10.0)}
    assert measuring.time_jobs(slow, seconds=1, rounds=7)["slow"]["rounds"] == 3


def row(framework, ms, subject="lenet5_conv", job=CODE, batch=64, **fields):
    row = {"subject": subject, "job": job, "batch": batch, "framework": framework}
    return {**row, "ms": ms, "quartiles_ms": [ms, ms] if ms else None, **fields}


TIMES = [row(OURS, 10.0), row(EAGER, 12.0), row(COMPILE, 5.0)]
TIMES += [row(OURS, 10.0, batch=128), row(EAGER, 20.0, batch=128)]


def test_targets_are_ratios_to_eager():
    slow, fast = tables.targets(TIMES)
    assert (slow["ratio"], slow["target"], slow["met"]) == (1.2, 1.3, False)
    assert (fast["ratio"], fast["met"]) == (2.0, True)
    report = {"times": TIMES, "targets": [slow, fast]}
    names = ["lenet5_conv", "-", "1.20 to 2.00 (0.50)", "-", "-", "1 of 2"]
    assert tables.summary_table(report).rows == [names]
    assert len(tables.notes(report)) == 1 + 1
    measured = measuring.measurements(Settings())
    assert {m.label for m in measured} == {*subjects.CONFIGS, "lenet5"}
    assert len(measured) == len({*map(str, measured)})  # a base model once


def use_others(monkeypatch, cores):
    """Has other processes use so many cores all the time."""
    clock = measuring.time.perf_counter
    monkeypatch.setattr(machine, "others_seconds", lambda: cores * clock())


@pytest.mark.parametrize("cores", [0.05, 1.5])
def test_rows_say_what_others_have_computed(monkeypatch, cores):
    jobs = lambda *args: {CODE: Prepared(lambda calls: None)}
    monkeypatch.setattr(measuring.jax_jobs, "code", jobs)
    m = measuring.Measurement("code", "lenet5_mlp", 8)
    use_others(monkeypatch, cores)
    rows = measuring.times(Settings(seconds=0.01, rounds=2), None, None, m)
    assert measuring.most_others(rows) == pytest.approx(cores, rel=0.01)


def test_a_second_start_goes_on(tmp_path, monkeypatch):
    wanted = Settings(subjects=("lenet5_mlp",), sections=("base",))
    origin = {"commit": "abc", "command": "c"}
    path, cores = tmp_path / "x.partial", iter([0.0, 1.5, *20 * [0.0]])
    monkeypatch.setattr(measuring, "make_subject", lambda name: name)
    measured = []

    def once(wanted, torch, subject, m):
        measured.append(m.batch)
        others = next(cores)
        return [row(OURS, 1.0, m.label, m.section, m.batch, others=others)]

    monkeypatch.setattr(measuring, "times", once)
    for _ in range(2):  # what others have disturbed is measured again
        assert len(measuring.run(wanted, None, path, origin)) == 3
    assert measured == [64, 128, 256, 128]
    for other in ({"command": "d"}, {"commit": "abc+dirty"}):  # from the beginning
        for _ in range(1 + ("commit" in other)):
            measured.clear()
            measuring.run(wanted, None, path, {**origin, **other})
            assert measured == [64, 128, 256]


@pytest.mark.long
@pytest.mark.parametrize("busy", [False, True])
def test_a_small_run(tmp_path, capsys, monkeypatch, busy):
    pytest.importorskip("torch")
    use_others(monkeypatch, 1.5 * busy)
    few = Settings(
        subjects=("lenet5_cheap",),
        train_batches=(8,),
        inference_batches=(1,),
        seconds=0.01,
        rounds=2,
        torch_compile=False,
    )
    benchmark.run_benchmark(few, tmp_path / "new")
    shown = capsys.readouterr().out
    assert "lenet5_cheap" in shown and ONE_LOST in shown
    assert busy == ("no file is written: others used up to 1.50 cores" in shown)
    files = [*(tmp_path / "new").glob("*.json")]
    assert len(files) == (not busy)
    for report in (json.loads(path.read_text()) for path in files):
        assert files[0].stem == machine.slug(report["machine"])
        assert len(report["times"]) == 2 * 4 and len(report["targets"]) == 4
        assert all(0 < r["fastest_ms"] <= r["ms"] for r in report["times"])


def test_wrong_flags_are_one_line(tmp_path):
    done = run_script("benchmark", "--subjects=lenet6", f"--folder={tmp_path}/x")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("error: subjects: ")
