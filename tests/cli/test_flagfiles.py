"""Flagfiles: one's own win, included ones need no clone, also where they are nested."""

import pytest
from absl import flags

from coded_jax.cli import command_line
from tests.scripts import ROOT

FLAGS = ROOT / "experiments/flags"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["quickstart.flags", "table5_k4_r2_conv.flags"])
def test_expanded_as_absl_does_it_but_from_any_folder(monkeypatch, name):
    path = FLAGS / name
    names = name, f"experiments/flags/{name}", f"./experiments/flags/{name}", str(path)
    expanded = [command_line.expand([f"--flagfile={name}", "--k=7"]) for name in names]
    monkeypatch.chdir(ROOT)
    expected = flags.FlagValues().read_flags_from_files([f"--flagfile={path}", "--k=7"])
    assert expanded == [expected] * len(names)


def test_ones_own_file_wins(elsewhere):
    own = elsewhere / "experiments/flags/quickstart.flags"
    own.parent.mkdir(parents=True)
    own.write_text("--k=4\n")
    (elsewhere / "mine.flags").write_text(
        "--flagfile=experiments/flags/quickstart.flags"
    )
    assert command_line.expand(["--flagfile=mine.flags"]) == ["--k=4"]
    assert "--k=2" in command_line.expand(["--flagfile=quickstart.flags"])


def test_a_missing_one_is_told_with_where_was_looked(elsewhere, capsys):
    for name in ("absent.flags", "", "../flags/quickstart.flags"):
        with pytest.raises(SystemExit) as stop:
            command_line.parse_flags(["run", f"--flagfile={name}"])
        assert stop.value.code.startswith(f"error: flagfile: {name!r} given, ")
        assert str(elsewhere) in stop.value.code and str(FLAGS) in stop.value.code
