"""The benchmark: equal jobs, honest counts, and a run of it in small."""

import functools
import json
import math
import pathlib
import sys
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import profiling
from rich.console import Console

from coded_jax.codes import erasures
from coded_jax.inference import pipeline
from coded_jax.training.losses import coded_losses
from tests.scripts import run_script

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
OURS, EAGER = "coded_jax", "pytorch"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield


@pytest.fixture(scope="module")
def subjects(scripts):
    """An MLP code (2,1) and a conv code (4,2), with random parameters."""
    from benchmarks import jax_jobs

    make = lambda *code: jax_jobs.make_subject(jax_jobs.noise(16), *code, widths=(4, 8))
    return {"mlp": make("mlp", 2, 1), "conv": make("conv", 4, 2)}


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_pytorch_computes_the_same(subjects, network):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_baseline, torch_jobs

    s, batch = subjects[network], 5
    images = s.dataset.train.images[:batch]
    available = np.ones((s.pipeline.n, batch), bool)
    available[0, 1:] = available[-1, 2] = False

    model = torch_jobs.make_model(s)
    theirs = torch_baseline.as_channels_first(images), torch.from_numpy(available.T)
    infer = jax.jit(pipeline.infer, static_argnums=0)
    logits = infer(s.pipeline, s.frozen, s.params, images, available)
    np.testing.assert_allclose(model.infer(*theirs).detach(), logits, atol=1e-5)

    @jax.jit
    def loss_and_gradient(params):
        batch = {"images": images}
        loss = lambda params: coded_losses(
            s.pipeline, params, s.frozen, batch, available
        ).mean()
        return jax.value_and_grad(loss)(params)

    loss, gradient = loss_and_gradient(s.params)
    value = model.loss(*theirs)
    np.testing.assert_allclose(value.item(), loss, rtol=1e-5)
    value.backward()
    # In PyTorch's order of axes, as if they were parameters.
    expected = torch_jobs.make_model(s._replace(params=gradient))
    for (name, parameter), wanted in zip(
        model.named_parameters(), expected.parameters(), strict=True
    ):
        if not name.startswith(("sums", "encoder", "decoder")):
            continue
        wanted = wanted.detach()
        scale = float(wanted.abs().max())
        assert scale > 0
        np.testing.assert_allclose(parameter.grad, wanted, atol=1e-4 * scale)
    assert all(p.grad is None for p in model.f_conv.parameters())


def test_pytorch_skips_the_decoder_only_if_no_data_piece_is_lost(subjects):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_baseline, torch_jobs

    s = subjects["mlp"]
    model = torch_jobs.make_model(s)
    images = torch_baseline.as_channels_first(s.dataset.train.images[:3])
    whole = model.head(model.f_conv(model.pixels(images)))
    for lost, same in ((), True), ((2,), True), ((0,), False):
        mask = torch.from_numpy(erasures.available(lost, 3).T)
        assert torch.allclose(model.infer(images, mask), whole, atol=1e-5) == same


def test_pytorch_trains(subjects, capsys):
    torch = pytest.importorskip("torch")
    from benchmarks import jax_jobs, torch_baseline, torch_jobs

    s = subjects["mlp"]
    model = torch_jobs.make_model(s)
    images = torch_baseline.as_channels_first(s.dataset.train.images)
    everything = torch.tensor([[False, True, True]])
    before = model.loss(images, everything).item()
    step = torch_baseline.trainer(model, images, 8)
    for _ in range(20):
        step()
    assert model.loss(images, everything).item() < before
    masks, weights = torch_baseline.patterns(model.job, torch.device("cpu"))
    assert masks.tolist() == [[False, True, True], [True, False, True]]
    assert weights.tolist() == [0.5, 0.5]

    request = {"job": jax_jobs.sizes(s), "batch": 4, "examples": 16, "calls": 1}
    for work in ("training", "inference"):
        torch_baseline.main(["", json.dumps({**request, "work": work})])
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
    assert profiling.temporary_bytes(add) >= 0
    assert profiling.peak_bytes() > 1e6


def test_work_is_that_of_stock_layers(subjects):
    from benchmarks import jax_jobs

    batch = 3
    assert profiling.products(5, [(2, 3), (4,)]) == 2 * 5 * (6 + 4)
    # Gradients cost a forward pass each, but for images, which nobody needs.
    operations = jax_jobs.work(subjects["mlp"], batch)
    inputs, size = 2 * 20 * 28, 2 * 4 * 16
    first, second = inputs**2, inputs * 20 * 28
    assert operations["mlp encoder"] == 2 * batch * (2 * first + 3 * second)
    weights = 3 * size * 2 * size + 2 * (2 * size) ** 2
    assert operations["mlp decoder"] == 3 * 2 * batch * weights
    maps = 16 * 24 * 25 * 6 + 4 * 8 * 25 * 6 * 16
    assert operations["f_conv"] == 2 * 2 * batch * 3 * maps
    operations = jax_jobs.work(subjects["conv"], batch)
    first, rest = 9 * 4 * 4, 5 * 9 * 4 * 4 + 4 * 2
    assert operations["conv encoder"] == 2 * batch * 16 * 28 * (2 * first + 3 * rest)
    weights = 9 * 6 * 16 * 8 + 5 * 9 * 8 * 8 + 8 * 4 * 16
    assert operations["conv decoder"] == 3 * 2 * batch * 4 * weights


def row(framework, ms, **fields):
    defaults = {"network": "conv", "k": 2, "r": 1, "batch": 64, "compile_s": 0.0}
    return {
        **defaults,
        "framework": framework,
        "ms": ms,
        "fastest_ms": ms / 2,
        **fields,
    }


def test_targets_are_ratios_and_the_worst_of_inference():
    from benchmarks import rows

    report = {
        "training": [row(OURS, 10.0), row(EAGER, 14.0), row("pytorch_compile", 1.0)],
        "inference": [
            row(OURS, 10.0, lost="nothing"),
            row(EAGER, 30.0, lost="nothing"),
            row(OURS, 10.0, lost="data 0"),
            row(EAGER, 10.0, lost="data 0"),
        ],
    }
    training, inference = rows.targets(report)
    assert (training["ratio"], training["target"], training["met"]) == (1.4, 1.5, False)
    assert training["what"] == "training, conv (2,1), batch 64"
    assert (inference["ratio"], inference["met"]) == (1.0, True)
    assert rows.targets({"training": [row(OURS, 1.0)]}) == []


ARGUMENTS = [
    *("--sections=training,inference", "--codes=2+1", "--networks=mlp"),
    *("--batch_sizes=8", "--seconds=0.01", "--rounds=2", "--torch_compile=none"),
]


run = functools.partial(run_script, "benchmark")


@pytest.mark.long
def test_a_small_run(tmp_path):
    output = tmp_path / "new" / "benchmark.json"
    done = run(*ARGUMENTS, f"--output={output}")
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    torch = find_spec("torch") is not None
    frameworks = {OURS, EAGER} if torch else {OURS}
    for section, per_framework in ("training", 1), ("inference", 2):
        rows = report[section]
        assert len(rows) == per_framework * len(frameworks)
        assert {r["framework"] for r in rows} == frameworks
        for r in rows:
            numbers = [r["ms"], r["fastest_ms"], *r["quartiles_ms"]]
            numbers += [r["images_per_second"]]
            numbers += [r["ratio_to_eager"]] if torch else []
            assert all(math.isfinite(x) and x > 0 for x in numbers)
            assert (r["compile_s"] > 0) == (r["framework"] == OURS)
            assert (r["ratio_to_eager"] is None) == (not torch)
    assert "mlp (2,1)" in done.stdout and "training of codes" in done.stdout
    assert any("coded_jax[bench]" in note for note in report["notes"]) == (not torch)
    assert len(report["targets"]) == (2 if torch else 0)
    assert report["machine"]["cores"] >= 1 and "jax" in report["versions"]
    assert (report["pytorch"] is None) == (not torch)


def test_without_pytorch_only_this_project_is_timed(subjects, monkeypatch):
    from benchmarks import sections

    monkeypatch.delitem(sys.modules, "benchmarks.torch_jobs", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    module, notes = sections.pytorch()
    assert module is None and "pip install 'coded_jax[bench]'" in notes[0]
    bench = sections.Bench(None, module, notes)
    s = subjects["mlp"]
    by_framework = sections.sides(bench, s, "parts", 2, compiles=True)
    assert by_framework.keys() == {OURS}
    assert by_framework[OURS].keys() == {"encode", "f_conv", "decode"}


def test_tables_of_every_section():
    from benchmarks import rows, tables

    both = lambda **fields: [
        row(name, 2.0, ratio_to_eager=1.0, images_per_second=1.0, **fields)
        for name in (OURS, EAGER)
    ]
    report = {
        "training": both(),
        "inference": both(lost="nothing"),
        "shares": both(part="encode", share=0.5),
        "scaling": [{**r, "devices": 1} for r in both(work="training")[:1]],
        "memory": [{**r, "peak_bytes": 5_000_000} for r in both(work="training")],
        "operations": both(
            operation="Adam", unit="byte", giga_per_second=3.0, of_limit=0.25
        ),
        "notes": ["a [note]"],
    }
    report["targets"] = rows.targets(report)
    console = Console(width=100, markup=False)
    with console.capture() as capture:
        console.print(tables.tables(report))
    text = capture.get()
    for words in ("50 %", "25 %", "2.00", "missed", "a [note]", "Adam, byte"):
        assert words in text


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--codes=2", "error: codes: ['2'] given, k+r, as 2+1, accepted"),
        ("--codes=9+9", "error: r: 9 given, 1..3 with k=9 accepted"),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, argument, message):
    done = run(argument, f"--output={tmp_path}/x.json")
    assert done.returncode == 1 and done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
