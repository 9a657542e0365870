"""A result is stale where code that made it was changed, and not where words were."""

import sys

import pytest

from coded_jax.runs import provenance, sources

CODE = '''"""Doc."""
LIMIT = 3
"""What it is for."""


def f(x: int) -> str:
    """Doc."""
    return f"{x:.2f}" + "text"  # why
'''


@pytest.fixture
def package(tmp_path):
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "__init__.py").write_text('"""Codes."""\n')
    (tmp_path / "codes" / "sums.py").write_text(CODE)
    return tmp_path


def test_words_and_layout_do_not_count():
    other = CODE.replace("Doc.", "Other.").replace("# why", "# because")
    other = other.replace("What it is for.", "More.").replace('"text"', '(\n"text")')
    assert other != CODE and sources.of_python(other) == sources.of_python(CODE)


@pytest.mark.parametrize("old, new", [("3", "4"), ('"text"', '"t"'), (".2f", ".3f")])
def test_code_counts(old, new):
    assert sources.of_python(CODE.replace(old, new)) != sources.of_python(CODE)


def test_the_digest_is_that_of_every_version_of_python():
    assert sources.of_python(CODE) == "2c8b9db95419"


def test_changed_and_missing_modules_are_named(package):
    names = ["coded_jax.codes", "coded_jax.codes.sums"]
    recorded = sources.of_modules(names, package)
    assert sources.changed(recorded, package) == []
    (package / "codes" / "sums.py").write_text(CODE.replace("3", "4"))
    assert sources.changed(recorded, package) == names[1:]
    (package / "codes" / "sums.py").unlink()
    assert sources.changed(recorded, package) == names[1:]


def test_what_shows_results_does_not_count():
    assert sources.counts("coded_jax.training.loop")
    assert sources.counts("coded_jax.runs.config")
    for name in ("coded_jax", "coded_jax.cli.grid", "coded_jax.runs.logs", "numpy"):
        assert not sources.counts(name)


def test_all_that_is_left_out_is_there():
    missing = [name for name in sources.APART if sources.of_modules([name])[name] == ""]
    assert missing == []


def test_native_code_counts(tmp_path):
    (tmp_path / "cpu_kernels").mkdir()
    (tmp_path / "cpu_kernels" / "library.py").write_text("X = 1\n")
    (tmp_path / "cpu_kernels" / "a.cc").write_text("int x = 1;")
    recorded = sources.of_modules(["coded_jax.cpu_kernels.library"], tmp_path)
    (tmp_path / "cpu_kernels" / "a.cc").write_text("int x = 2;")
    assert sources.changed(recorded, tmp_path) == list(recorded)


def test_code_that_is_loaded_keeps_its_digest_when_its_file_changes(monkeypatch):
    first = sources.of_process()
    monkeypatch.setattr(sources, "_of_module", lambda name, package: "edited")
    assert sources.of_process() == first


def test_a_process_records_what_it_has_loaded():
    recorded = provenance.collect().sources
    assert recorded == sources.of_modules(recorded) and len(recorded) > 5
    assert {*recorded} <= {*sys.modules}
    assert "coded_jax.codes" in recorded and "" not in recorded.values()


def test_code_that_differs_from_the_one_before_counts_as_changed(package):
    (name,) = names = ["coded_jax.codes.sums"]
    first = sources.of_modules(names, package)
    (package / "codes" / "sums.py").write_text(CODE.replace("3", "4"))
    second = sources.of_modules(names, package)
    both = sources.merged(first, {"coded_jax.other": "x"}, second)
    assert both == {
        "coded_jax.other": "x",
        name: "+".join(sorted({*first.values(), *second.values()})),
    }
    assert sources.changed({name: both[name]}, package) == [name]
    assert (
        sources.merged(both, second) == both and sources.merged(first, first) == first
    )
