"""The benchmark: equal jobs, honest counts, and a run of it in small."""

import dataclasses
import functools
import json
import math
import pathlib
import sys
from importlib.util import find_spec

import benchmark
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import (
    hlo_profile,
    machine,
    profiling,
    rows,
    sections,
    store,
    subjects,
    tables,
)
from benchmarks.rows import BASE, CODE, COMPILE, EAGER, NOTHING_LOST, ONE_LOST, OURS
from benchmarks.sections import Bench, Measurement, Settings
from rich.console import Console
from tables import stored

from coded_jax.codes import erasures
from coded_jax.inference import pipeline
from coded_jax.runs.build import uncoded_pipeline
from coded_jax.training.losses import base_losses, coded_losses
from tests.scripts import run_script

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
BATCH = 4
NARROW = {"encoder_width": 4, "decoder_width": 8}


@functools.cache
def subject(name):
    """A subject with random parameters, and narrower where that makes it faster."""
    config = subjects.CONFIGS[name]
    if config.encoder == "conv":
        config = dataclasses.replace(config, **NARROW)
    if config.base_width < 1:
        config = dataclasses.replace(config, base_width=0.0625)
    return subjects.make_subject(name, 16, config=config)


def near(theirs, ours):
    """As near as rounding lets them be, on the scale of the largest of ours."""
    ours = np.asarray(ours)
    scale = float(np.abs(ours).max())
    assert scale > 0
    theirs = theirs.detach().numpy()
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=3e-5 * scale)


@pytest.mark.parametrize("name", subjects.CONFIGS)
def test_pytorch_infers_the_same(name):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_jobs

    s = subject(name)
    images = s.dataset.train.images[:BATCH]
    infer = jax.jit(pipeline.infer, static_argnums=0)
    model = torch_jobs.model_of(s).eval()
    theirs = torch.from_numpy(images)
    for lost in (), (0,), (2,):
        available = erasures.available(lost, s.pipeline.n)
        logits = infer(s.pipeline, s.frozen, s.params, images, available)
        mask = torch.from_numpy(available.T)
        near(model.infer(theirs, mask), logits)
        if lost != (0,):  # what is decoded of all results is what arrived
            near(model.logits(theirs, mask, complete=False), logits)


@pytest.mark.parametrize("name", subjects.CONFIGS)
def test_pytorch_trains_the_same(name):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_jobs

    s = subject(name)
    split = s.dataset.train
    batch = {"images": split.images[:BATCH], "labels": split.labels[:BATCH]}
    available = np.ones((s.pipeline.n, BATCH), bool)
    available[0, 1:] = available[-1, 0] = False

    @jax.jit
    def code_loss(params):
        return coded_losses(s.pipeline, params, s.frozen, batch, available).mean()

    loss, gradient = jax.value_and_grad(code_loss)(s.params)
    model = torch_jobs.model_of(s)
    images = torch.from_numpy(batch["images"])
    with torch.no_grad():
        targets = model.targets(images)
    value = model.loss(images, torch.from_numpy(available.T), targets)
    near(value, loss)
    value.backward()
    # In PyTorch's order of axes, as if they were parameters.
    expected = torch_jobs.model_of(s._replace(params=gradient))
    for own, wanted in zip(
        model.codes.parameters(), expected.codes.parameters(), strict=True
    ):
        near(own.grad, wanted.detach())
    assert all(p.grad is None for p in model.network.parameters())

    uncoded = uncoded_pipeline(s.config, s.dataset.mean, s.dataset.std)
    loss, updated = base_losses(uncoded, s.frozen, batch)
    network = model.network.train()
    near(network.loss(images, torch.from_numpy(batch["labels"]).long()), loss.mean())
    if updated:  # the first batch norm's running mean, of momentum 0.9
        leaf = jax.tree.leaves(updated["block_1"])[0]
        norms = (x for x in network.modules() if isinstance(x, torch.nn.BatchNorm2d))
        near(next(norms).running_mean, leaf)


def test_pytorch_does_its_steps(capsys):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_baseline, torch_jobs

    s = subject("vgg16")
    model = torch_jobs.model_of(s)
    images = torch.from_numpy(s.dataset.train.images)
    everything = torch.tensor([[False, True, True]])
    with torch.no_grad():
        targets = model.targets(images)
    before = model.loss(images, everything, targets).item()
    step = torch_baseline.code_trainer(model, images, 8)
    for _ in range(20):
        step()
    assert model.loss(images, everything, targets).item() < before
    labels = torch.from_numpy(s.dataset.train.labels).long()
    before = model.network.loss(images, labels).item()
    step = torch_baseline.base_trainer(model, images, labels, 8)
    for _ in range(20):
        step()
    assert model.network.loss(images, labels).item() < before
    masks, weights = torch_baseline.patterns(model.job, torch.device("cpu"))
    assert masks.tolist() == [[False, True, True], [True, False, True]]
    assert weights.tolist() == [0.5, 0.5]
    weights = [x.weight for x in model.modules() if isinstance(x, torch.nn.Conv2d)]
    layout = torch.channels_last
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)

    request = {"sizes": subjects.sizes(s), "batch": 4, "examples": 16, "calls": 1}
    for job in BASE, CODE:
        torch_baseline.main(["", json.dumps({**request, "job": job})])
        memory = json.loads(capsys.readouterr().out)
        assert 0 < memory["before_bytes"] <= memory["peak_bytes"]


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when a job says so: `[seconds]`."""
    now = [0.0]
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: now[0])
    return now


def test_jobs_take_turns(clock):
    order = []

    def job(name, calls):
        order.append(name * calls)
        clock[0] += calls * (1 if name == "a" else 0.25)

    jobs = {name: functools.partial(job, name) for name in "ab"}
    timings = profiling.measure(jobs, seconds=4, rounds=4)
    # One call, and one to wake the threads before several.
    assert order[-12:] == ["b", "bbbb", "a", "a", "b", "bbbb"] * 2
    assert timings["a"] == profiling.Timing(1.0, (1.0, 1.0), 1.0, 4, 1)
    assert timings["b"] == profiling.Timing(0.25, (0.25, 0.25), 0.25, 4, 4)


def test_slow_jobs_have_fewer_rounds(clock):
    def job(calls):
        clock[0] += 10.0 * calls

    timing = profiling.measure({"slow": job}, seconds=1, rounds=7)["slow"]
    assert timing == profiling.Timing(10.0, (10.0, 10.0), 10.0, 3, 1)


def test_jobs_do_their_calls():
    state = jnp.zeros(())
    add, seconds = profiling.compiled(jax.jit(lambda x: x + 1, donate_argnums=0), state)
    seen = []
    job = profiling.carry(lambda x: seen.append(x) or add(x), state)
    job(3)
    job(2)
    assert len(seen) == 5 and seconds > 0
    calls = []
    profiling.repeat(calls.append, 1)(4)
    assert calls == [1, 1, 1, 1]
    assert profiling.peak_bytes() > 1e6


def test_measurements_train_every_base_model_once():
    found = sections.measurements(Settings(sections=("base", "code")))
    assert len(found) == 3 * (4 + 6) == len(set(map(str, found)))
    assert str(found[0]) == "base:lenet5:64" and str(found[3]) == "code:lenet5_mlp:64"
    found = sections.measurements(Settings(subjects=("vgg16",), train_batches=(8, 16)))
    names = [str(m) for m in found]
    assert names[:4] == [
        f"{job}:vgg16:{b}" for job in ("base", "code") for b in (8, 16)
    ]
    assert names[4:] == [
        *(f"inference:vgg16:{b}" for b in (1, 64, 256)),
        "memory:vgg16:16",
    ]


def row(framework, ms, subject="lenet5_conv", job=CODE, batch=64, **fields):
    return {
        "subject": subject,
        "job": job,
        "batch": batch,
        "framework": framework,
        "ms": ms,
        "quartiles_ms": [ms, ms] if ms else None,
        **fields,
    }


def test_targets_are_ratios_to_eager():
    report = {
        "times": [
            row(OURS, 10.0),
            row(EAGER, 12.0),
            row(COMPILE, 100.0),
            *(row(OURS, 10.0, "vgg16", job) for job in (BASE, NOTHING_LOST)),
            *(row(EAGER, 11.0, "vgg16", job) for job in (BASE, NOTHING_LOST)),
            row(OURS, 1.0, "lenet5", BASE),
        ],
        "memory": [
            row(OURS, None, peak_bytes=10),
            row(EAGER, None, peak_bytes=9),
        ],
    }
    code, base, inference, memory = rows.targets(report)
    assert (code["ratio"], code["target"], code["met"]) == (1.2, 1.3, False)
    assert (base["ratio"], base["target"], base["met"]) == (1.1, 1.1, True)
    assert (inference["job"], inference["target"]) == (NOTHING_LOST, 1.1)
    assert (memory["kind"], memory["ratio"], memory["met"]) == ("memory", 0.9, False)
    assert rows.targets({"times": [row(OURS, 1.0)]}) == []
    assert {m.label for m in sections.measurements(Settings())} == {*rows.GOALS}


class Machine:
    """Others that use so many cores, one number for each look; the last one stays."""

    def __init__(self, *used):
        self.used = list(used)

    def __call__(self):
        return self.used.pop(0) if len(self.used) > 1 else self.used[0]


def test_a_busy_machine_is_waited_for_and_then_refused():
    seconds = iter(range(0, 1000, 25))
    clock = lambda: next(seconds)
    machine.Watch(Machine(1.0, 0.5, 0.01)).wait(clock)
    with pytest.raises(machine.Busy, match="^machine: other processes use 1.50 of"):
        machine.Watch(Machine(1.5)).wait(clock)
    watch = machine.Watch(Machine(0.05))
    watch.wait(clock)
    assert watch.most == 0.05 and not watch.busy
    allowed = machine.Watch(Machine(1.5), allow=True)
    allowed.wait(clock)
    assert allowed.busy
    unknown = machine.Watch(Machine(None))
    unknown.wait(clock)
    assert not unknown.busy


def test_what_others_disturbed_is_measured_again(monkeypatch):
    measured = []
    monkeypatch.setattr(sections, "times", lambda *args: measured.append(args) or [1])
    watch = machine.Watch(Machine(0.0, 1.0, 0.0, 0.0))
    assert sections.undisturbed(Bench(Settings(), None, watch), None, "m") == [1]
    assert len(measured) == 2
    watch = machine.Watch(Machine(*[0.0, 1.0] * 10))
    with pytest.raises(machine.Busy, match="during 5 trials of m"):
        sections.undisturbed(Bench(Settings(), None, watch), None, "m")


def test_the_meter_leaves_out_this_process(monkeypatch):
    monkeypatch.setattr(machine, "SECONDS", 0.3)
    used = machine.others()
    assert used is not None and 0 <= used <= 1.5 * machine.about()["cores"]
    if machine.PROC.exists():
        assert machine._own_ticks() > 0
    monkeypatch.setattr(machine, "PROC", pathlib.Path("/nowhere"))
    assert machine.others() == pytest.approx(machine.os.getloadavg()[0], abs=0.5)
    assert machine.about()["instructions"] == []


def test_ticks_of_children_are_our_own(tmp_path, monkeypatch):
    stat = "{} (a ) b) S {} " + " ".join(["0"] * 9) + " 1 2 30 40 5"
    pid = machine.os.getpid()
    for child, parent in (pid, 1), (7, pid), (8, 7), (9, 1):
        (tmp_path / str(child)).mkdir()
        (tmp_path / str(child) / "stat").write_text(stat.format(child, parent))
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert machine._own_ticks() == 3 * 73


def test_machines_have_names_that_differ():
    about = {
        **{"processor": "Intel(R) Xeon(R) CPU @ 2.10GHz", "family": 6, "model": 143},
        **{"stepping": 8, "instructions": ["avx2", "amx_tile"], "cores": 2},
        **{"backend": "cpu", "device": "cpu"},
    }
    assert machine.slug(about) == "intel-xeon-cpu-2-10ghz-6-143-8-2-cores"
    card = {**about, "backend": "gpu", "device": "NVIDIA H100 80GB HBM3"}
    assert machine.slug(card).endswith("-2-cores-nvidia-h100-80gb-hbm3")
    assert "model 143" in machine.title(about) and "amx_tile" in machine.title(about)


def test_a_second_start_goes_on(tmp_path):
    output = tmp_path / "new" / "x.json"
    origin = {"commit": "abc", "command": "c", "threads": (1, 2)}
    first = store.Store(output, origin)
    first.add("a", [row(OURS, 1.0)])
    first.add("b", [])
    assert store.Store(output, origin).rows == first.rows
    assert store.Store(output, {**origin, "command": "d"}).rows == {}
    assert store.Store(output, origin).rows == {}  # what another has begun is gone
    for commit in ("abc+dirty", None):
        uncommitted = {**origin, "commit": commit}
        store.Store(output, uncommitted).add("a", [])
        assert store.Store(output, uncommitted).rows == {}
    last = store.Store(output, origin)
    # Else what is kept among the results would make the commit a changed one.
    ignored = (FOLDER.parent / ".gitignore").read_text().splitlines()
    assert f"*{last.path.suffix}" in ignored
    last.drop()
    assert not [*output.parent.iterdir()]


def test_measured_rows_are_not_measured_again(tmp_path, monkeypatch):
    settings = Settings(subjects=("lenet5_mlp",), sections=("base", "code"))
    bench = Bench(settings, None, machine.Watch(Machine(0.0)))
    kept = store.Store(tmp_path / "x.json", {"commit": "abc"})
    looked = iter([0, 0, 0, 1, 1, 1])
    monkeypatch.setattr(sections, "make_subject", lambda name: name)

    def once(bench, subject, m):
        if next(looked):
            raise machine.Busy("machine: busy")
        return [row(OURS, 1.0, m.label, m.section, m.batch)]

    monkeypatch.setattr(sections, "undisturbed", once)
    with pytest.raises(machine.Busy):
        sections.run(bench, kept)
    assert [*kept.rows] == [f"base:lenet5:{batch}" for batch in (64, 128, 256)]
    looked = iter([0, 0, 0])
    kept = store.Store(tmp_path / "x.json", {"commit": "abc"})
    assert len(sections.run(bench, kept)["times"]) == 6


run = functools.partial(run_script, "benchmark")
SMALL = Settings(
    sections=("code", "inference"),
    subjects=("lenet5_cheap",),
    train_batches=(8,),
    inference_batches=(1,),
    seconds=0.01,
    rounds=2,
    torch_compile=False,
)


@pytest.mark.long
def test_a_small_run(tmp_path, capsys):
    benchmark.measure(SMALL, tmp_path / "new", machine.Watch(Machine(0.0)))
    (output,) = (tmp_path / "new").iterdir()
    report = json.loads(output.read_text())
    assert output.stem == machine.slug(report["machine"])
    torch = find_spec("torch") is not None
    frameworks = {OURS, EAGER} if torch else {OURS}
    assert len(report["times"]) == 3 * len(frameworks) and report["memory"] == []
    for r in report["times"]:
        numbers = [r["ms"], r["fastest_ms"], *r["quartiles_ms"]]
        assert all(math.isfinite(x) and x > 0 for x in numbers)
        assert (r["compile_s"] > 0) == (r["framework"] == OURS)
    shown = capsys.readouterr()
    assert "lenet5_cheap" in shown.out and ONE_LOST in shown.out
    assert ("coded_jax[bench]" in shown.err) == (not torch)
    assert len(report["targets"]) == (3 if torch else 0)
    assert report["machine"]["cores"] >= 1 and "jax" in report["versions"]
    assert report["command"].startswith("python ") and report["date"]
    assert (report["pytorch"] is None) == (not torch)
    assert report["seconds"] > 0
    made = report["sources"]
    assert "benchmarks.sections" in made and "coded_jax.training.steps" in made
    assert stored.changed_modules(report) == [] and "benchmarks.tables" not in made


@pytest.mark.long
def test_no_file_is_written_where_others_computed(tmp_path, capsys):
    small = SMALL._replace(sections=("inference",))
    watch = machine.Watch(Machine(1.5), allow=True)
    benchmark.measure(small, tmp_path / "new", watch)
    assert not [*(tmp_path / "new").iterdir()]
    shown = capsys.readouterr().out
    assert "lenet5_cheap" in shown and "others used up to 1.50 cores" in shown
    assert "no file is written: the machine was not idle" in shown


@pytest.mark.long
def test_memory_is_that_of_processes():
    measurement = Measurement("memory", "lenet5_cheap", 8)
    torch = sections.pytorch()
    settings = Settings(subjects=("lenet5_cheap",))
    measured = sections.memory(Bench(settings, torch, None), measurement)
    assert {(r["subject"], r["job"]) for r in measured} == {
        ("lenet5", BASE),
        ("lenet5_cheap", CODE),
    }
    assert len(measured) == (4 if torch else 2)
    assert all(0 < r["before_bytes"] <= r["peak_bytes"] < 2**40 for r in measured)


def test_without_pytorch_only_this_project_is_timed(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "benchmarks.torch_jobs", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert sections.pytorch() is None
    assert "pip install 'coded_jax[bench]'" in capsys.readouterr().err
    settings = Settings(seconds=0.01, rounds=2)
    measurement = Measurement("inference", "lenet5_cheap", 2)
    bench = Bench(settings, None, machine.Watch(Machine(0.0)))
    measured = sections.times(bench, subject("lenet5_cheap"), measurement)
    assert [(r["framework"], r["job"]) for r in measured] == [
        (OURS, NOTHING_LOST),
        (OURS, ONE_LOST),
    ]
    report = {"times": measured, "memory": [], "busy": False, "targets": []}
    assert tables.notes(report) == []


def test_a_failure_of_torch_compile_is_a_row(monkeypatch):
    pytest.importorskip("torch")
    from benchmarks import torch_jobs

    def fail(*args):
        raise RuntimeError("torch.compile: no compiler")

    monkeypatch.setattr(torch_jobs, "_first_call", fail)
    settings = Settings(seconds=0.01, rounds=2)
    bench = Bench(settings, torch_jobs, machine.Watch(Machine(0.0)))
    measurement = Measurement("base", "lenet5_cheap", 2)
    measured = sections.times(bench, subject("lenet5_cheap"), measurement)
    assert [r["framework"] for r in measured] == [OURS, EAGER, COMPILE]
    assert measured[-1]["ms"] is None
    report = {"times": measured, "memory": [], "busy": False, "targets": []}
    (note,) = tables.notes(report)
    assert note == "torch.compile: no compiler (lenet5, base, 2)"
    assert "failed" in tables.speed_cells(measured)[0]


def report_of(**fields):
    report = {
        "machine": {
            **{"processor": "A", "family": 1, "model": 2, "stepping": 3, "cores": 2},
            **{"instructions": ["avx2"], "backend": "cpu", "device": "cpu"},
        },
        "threads": {"coded_jax": 2, "pytorch": 2},
        "versions": {"jax": "1"},
        "pytorch": {"version": "2"},
        "commit": "0123456789abcdef",
        "command": "python experiments/benchmark.py",
        "date": "2026-01-01T00:00:00",
        "busy": False,
        "others": 0.0,
        "times": [
            row(OURS, 10.0),
            row(EAGER, 12.0),
            row(COMPILE, 5.0),
            row(OURS, 10.0, batch=128),
            row(EAGER, 20.0, batch=128),
        ],
        "memory": [
            row(OURS, None, peak_bytes=2_000_000),
            row(EAGER, None, peak_bytes=5_000_000),
        ],
        **fields,
    }
    return {**report, "targets": rows.targets(report)}


def test_tables_show_every_machine():
    report = report_of()
    console = Console(width=100, markup=False)
    with console.capture() as capture:
        console.print(tables.tables(report))
    text = capture.get()
    for words in ("1.20", "0.50", "2.50", "1.3 missed", "2 of 3 targets are met"):
        assert words in text
    other = report_of(memory=[])
    other["machine"] = {**other["machine"], "processor": "B"}
    page = tables.section([report, other])
    first = "| lenet5_conv | code | 64 | 10.00 (10.00, 10.00) | 12.00 (12.00, 12.00) |"
    assert page.count(first) == 2 and "commit 0123456789ab, 2026-01-01" in page
    assert page.index("A, family 1, model 2") < page.index("B, family 1, model 2")
    assert "missed: speed of lenet5_conv, code, batch 64: 1.20 where 1.3" in page
    summary = tables.summary([report])
    assert "| lenet5_conv | - | 1.20 to 2.00 (0.50) | - | - | 2 of 3 |" in summary
    assert tables.section([]) == tables.summary([]) == tables.NONE


def test_time_is_divided_among_those_that_run():
    events = [
        hlo_profile.Event("a", 0.0, 4.0),
        hlo_profile.Event("b", 1.0, 3.0),
        hlo_profile.Event("none", 2.0, 2.0),
        hlo_profile.Event("a", 5.0, 6.0),
    ]
    parts = hlo_profile.divide(events)
    assert parts == {"a": 4.0, "b": 1.0, hlo_profile.NOTHING: 1.0}
    assert hlo_profile.divide([]) == {}


PROGRAM = """HloModule jit_f
%inner (p: f32[2,2]) -> f32[2,2] {
  ROOT %convolution.1 = f32[2,2]{1,0} convolution(%p, %p), window={size=1}
}

ENTRY %main (x: f32[2,2]) -> f32[2,2] {
  %copy.3 = f32[2,2]{0,1} copy(%x)
  %ynn_fusion.2 = f32[2,2]{1,0} fusion(%copy.3, %x), kind=kCustom, calls=%inner
  %dot.4 = (f32[2,2]{1,0}, s8[1]{0}) custom-call(%x), custom_call_target="gemm", \
metadata={op_name="jit(f)/transpose(jvp(Layer))/Dense_0/dot_general" stack_frame_id=3}
  ROOT %max.5 = f32[2,2]{1,0} maximum(%dot.4, %x), metadata={op_name="jit(f)/max"}
}
"""


def test_instructions_have_names_even_where_jax_gives_none():
    found = hlo_profile.read_operations(PROGRAM.replace("\\\n", ""))
    kinds = {name: operation.kind for name, operation in found.items()}
    assert kinds == {
        "convolution.1": "convolution without a name",
        "copy.3": "copy for convolution without a name",
        "ynn_fusion.2": "convolution without a name",
        "dot.4": "dot_general, gradient",
        "max.5": "max, forward",
    }
    assert found["dot.4"] == hlo_profile.Operation(
        "gemm",
        "(f32[2,2], s8[1])",
        "dot_general, gradient",
        "transpose(jvp(Layer))/Dense_0/dot_general",
    )


@pytest.mark.skipif(not hasattr(jax.profiler, "ProfileData"), reason="an older JAX")
def test_a_profile_has_the_names_of_the_program(monkeypatch):
    monkeypatch.setattr(hlo_profile, "make_subject", subject)
    monkeypatch.setattr(hlo_profile, "CALLS", 2)
    console = Console(width=120, markup=False)
    with console.capture() as capture:
        console.print(hlo_profile.profile("base:lenet5_cheap:8"))
    text = capture.get()
    assert "dot_general, gradient" in text and "dot_general, forward" in text
    assert "f32[8," in text and "ms per step under the profiler" in text


def test_profiles_need_a_jax_that_reads_them(monkeypatch):
    monkeypatch.delattr(jax.profiler, "ProfileData", raising=False)
    with pytest.raises(ValueError, match="^profile: 'jax .* given, a version of JAX"):
        hlo_profile.profile("base:lenet5_cheap:8")


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--subjects=lenet6", "error: subjects: ['lenet6'] given, some of"),
        ("--train_batches=0", "error: train_batches: ['0'] given, integers in 1..4096"),
        ("--seconds=0", "error: seconds: 0.0 given, more than 0"),
        ("--profile=base:vgg16", "error: profile: 'base:vgg16' given, section:subject"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, argument, message):
    done = run(argument, f"--folder={tmp_path}/x", "--allow_busy")
    assert done.returncode == 1 and done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
