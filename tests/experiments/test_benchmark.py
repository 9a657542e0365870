"""The benchmark: equal jobs, honest counts, and a run of it in small."""

import dataclasses
import functools
import itertools
import json

import benchmark
import jax
import numpy as np
import pytest
from benchmarks import machine, profiling, rows, sections, subjects
from benchmarks import tables as benchmark_tables
from benchmarks.rows import BASE, CODE, COMPILE, EAGER, ONE_LOST, OURS
from benchmarks.sections import Bench, Settings

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
            near(model.logits(*given, complete=False), logits)

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

    uncoded = uncoded_pipeline(s.config, s.dataset.mean, s.dataset.std)
    loss, updated = base_losses(uncoded, s.frozen, batch)
    network = model.network.train()
    near(network.loss(images, torch.from_numpy(batch["labels"]).long()), loss.mean())
    if updated:  # the first batch norm's running mean, of momentum 0.9
        norms = (x for x in network.modules() if isinstance(x, torch.nn.BatchNorm2d))
        near(next(norms).running_mean, jax.tree.leaves(updated["block_1"])[0])


def test_jobs_take_turns_and_slow_ones_have_fewer_rounds(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])

    def job(name, seconds, calls):
        order.append(name * calls)
        now[0] += calls * seconds

    jobs = {"a": functools.partial(job, "a", 1), "b": functools.partial(job, "b", 0.25)}
    timings = profiling.time_jobs(jobs, seconds=4, rounds=4)
    # One call, and one to wake the threads before several.
    assert order[-12:] == ["b", "bbbb", "a", "a", "b", "bbbb"] * 2
    assert timings["a"] == profiling.Timing(1.0, (1.0, 1.0), 1.0, 4, 1)
    assert timings["b"] == profiling.Timing(0.25, (0.25, 0.25), 0.25, 4, 4)
    slow = {"slow": functools.partial(job, "s", 10.0)}
    assert profiling.time_jobs(slow, seconds=1, rounds=7)["slow"].rounds == 3


def row(framework, ms, subject="lenet5_conv", job=CODE, batch=64, **fields):
    row = {"subject": subject, "job": job, "batch": batch, "framework": framework}
    return {**row, "ms": ms, "quartiles_ms": [ms, ms] if ms else None, **fields}


TIMES = [row(OURS, 10.0), row(EAGER, 12.0), row(COMPILE, 5.0)]
TIMES += [row(OURS, 10.0, batch=128), row(EAGER, 20.0, batch=128)]
MEMORY = [row(OURS, None, peak_bytes=10e6), row(EAGER, None, peak_bytes=9e6)]


def test_targets_are_ratios_to_eager():
    slow, fast, memory = rows.targets({"times": TIMES, "memory": MEMORY})
    assert (slow["ratio"], slow["target"], slow["met"]) == (1.2, 1.3, False)
    assert (fast["ratio"], fast["met"]) == (2.0, True)
    assert (memory["kind"], memory["ratio"], memory["met"]) == ("memory", 0.9, False)
    report = {"times": TIMES, "memory": MEMORY, "busy": False}
    report["targets"] = [slow, fast, memory]
    names = ["lenet5_conv", "-", "1.20 to 2.00 (0.50)", "-", "-", "1 of 3"]
    assert benchmark_tables.summary_table(report).rows == [names]
    assert len(benchmark_tables.notes(report)) == 1 + 2
    measured = sections.measurements(Settings())
    assert {m.label for m in measured} == {*subjects.CONFIGS, "lenet5"}
    assert len(measured) == len({*map(str, measured)})  # a base model once


def meter(*used):
    """Others that use so many cores, a number for each look, and again."""
    return itertools.cycle(used).__next__


def test_a_busy_machine_is_waited_for_and_then_refused():
    clock = iter(range(0, 1000, 25)).__next__
    machine.Watch(meter(1.0, 0.5, 0.01)).wait(clock)
    with pytest.raises(machine.Busy, match="^machine: other processes use 1.50 of"):
        machine.Watch(meter(1.5)).wait(clock)
    allowed = machine.Watch(meter(1.5), allow=True)
    allowed.wait(clock)
    assert allowed.busy


def test_what_others_disturbed_is_measured_again(monkeypatch):
    measured = []
    monkeypatch.setattr(sections, "times", lambda *args: measured.append(args) or [1])
    bench = Bench(Settings(), None, machine.Watch(meter(0.0, 1.0, 0.0, 0.0)))
    assert sections.undisturbed(bench, None, "m") == [1] and len(measured) == 2
    bench = Bench(Settings(), None, machine.Watch(meter(0.0, 1.0)))
    with pytest.raises(machine.Busy, match="during 5 trials of m"):
        sections.undisturbed(bench, None, "m")


def test_a_second_start_goes_on(tmp_path, monkeypatch):
    bench = Bench(Settings(subjects=("lenet5_mlp",), sections=("base",)), None, None)
    origin = {"commit": "abc", "command": "c"}
    output = tmp_path / "new" / "x.json"
    looks = iter([False, False, True, False])
    monkeypatch.setattr(sections, "make_subject", lambda name: name)

    def once(bench, subject, m):
        if next(looks):
            raise machine.Busy("machine: busy")
        return [row(OURS, 1.0, m.label, m.section, m.batch)]

    monkeypatch.setattr(sections, "undisturbed", once)
    with pytest.raises(machine.Busy):
        sections.run(bench, sections.Store(output, origin))
    kept = sections.Store(output, origin)
    assert [*kept.rows] == ["base:lenet5:64", "base:lenet5:128"]
    assert len(sections.run(bench, kept)["times"]) == 3
    assert sections.Store(output, {**origin, "command": "d"}).rows == {}
    assert sections.Store(output, origin).rows == {}  # what another has begun is gone
    for commit in ("abc+dirty", None):
        sections.Store(output, {**origin, "commit": commit}).add("a", [])
        assert sections.Store(output, {**origin, "commit": commit}).rows == {}


@pytest.mark.long
@pytest.mark.parametrize("busy", [False, True])
def test_a_small_run(tmp_path, capsys, busy):
    pytest.importorskip("torch")
    batches = {"train_batches": (8,), "inference_batches": (1,)}
    few = Settings(subjects=("lenet5_cheap",), seconds=0.01, rounds=2, **batches)
    watch = machine.Watch(meter(1.5 * busy), allow=busy)
    benchmark.run_benchmark(
        dataclasses.replace(few, torch_compile=False), tmp_path / "new", watch
    )
    shown = capsys.readouterr().out
    assert "lenet5_cheap" in shown and ONE_LOST in shown
    assert busy == ("no file is written: the machine was not idle" in shown)
    files = [*(tmp_path / "new").iterdir()]
    assert len(files) == (not busy)
    for report in (json.loads(path.read_text()) for path in files):
        assert files[0].stem == machine.slug(report["machine"])
        assert len(report["times"]) == 2 * 4 and len(report["targets"]) == 4 + 2
        assert all(0 < r["fastest_ms"] <= r["ms"] for r in report["times"])
        assert {r["job"] for r in report["memory"]} == {BASE, CODE}
        assert all(0 < r["before_bytes"] <= r["peak_bytes"] for r in report["memory"])


@pytest.mark.parametrize("argument", ["--subjects=lenet6", "--profile=base:vgg16"])
def test_wrong_flags_are_one_line(tmp_path, argument):
    done = run_script("benchmark", argument, f"--folder={tmp_path}/x", "--allow_busy")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"error: {argument[2:].partition('=')[0]}: ")
