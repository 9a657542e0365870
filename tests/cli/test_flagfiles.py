"""Flagfiles: one's own win, included ones need no clone, also where they are nested."""

import re

import pytest
from absl import flags

from coded_jax.cli import command_line, flagfiles
from tests.scripts import ROOT

FLAGS = ROOT / "experiments/flags"
FILES = sorted(FLAGS.rglob("*.flags"))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["quickstart.flags", "table5_k4_r2_conv.flags"])
def test_expanded_as_absl_does_it_but_from_any_folder(monkeypatch, name):
    path = FLAGS / name
    names = name, f"experiments/flags/{name}", f"./experiments/flags/{name}", str(path)
    expanded = [flagfiles.expand([f"--flagfile={name}", "--k=7"]) for name in names]
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
    assert flagfiles.expand(["--flagfile=mine.flags"]) == ["--k=4"]
    assert "--k=2" in flagfiles.expand(["--flagfile=quickstart.flags"])


def test_those_of_the_installed_package_are_in_it(elsewhere, monkeypatch):
    (elsewhere / "flags").mkdir()
    (elsewhere / "flags/small.flags").write_text("--k=4\n")
    assert "small.flags" not in flagfiles.included()
    monkeypatch.setattr(flagfiles, "PACKAGE", elsewhere)
    assert [*flagfiles.included()] == ["small.flags"]
    assert flagfiles.expand(["--flagfile=experiments/flags/small.flags"]) == ["--k=4"]


def test_forms_of_the_flag_and_of_lines(elsewhere):
    text = "# a comment\n// another\n\n  --k=4  \n--vary=decoder=mlp conv\n"
    (elsewhere / "x.flags").write_text(text)
    lines = ["--k=4", "--vary=decoder=mlp conv"]
    assert flagfiles.expand(["--flagfile", "x.flags", "--r=1"]) == [*lines, "--r=1"]
    assert flagfiles.expand(["-flagfile=x.flags"]) == lines
    untouched = ["--", "--flagfile=x.flags"]
    assert flagfiles.expand(untouched) == untouched


def test_a_missing_one_is_told_with_where_was_looked(elsewhere, capsys):
    for name in ("absent.flags", "", "../flags/quickstart.flags"):
        with pytest.raises(SystemExit) as stop:
            command_line.parse_flags(["run", f"--flagfile={name}"])
        assert stop.value.code.startswith(f"error: flagfile: {name!r} given, ")
        assert str(elsewhere) in stop.value.code and str(FLAGS) in stop.value.code


def test_one_that_includes_itself_or_is_no_text_is_told(elsewhere):
    (elsewhere / "a.flags").write_text("--flagfile=b.flags\n")
    (elsewhere / "b.flags").write_text("--flagfile=a.flags\n")
    (elsewhere / "c.flags").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="^flagfile: 'a.flags' given, one without its"):
        flagfiles.expand(["--flagfile=a.flags"])
    with pytest.raises(ValueError, match="^flagfile: 'c.flags' given, a text with a"):
        flagfiles.expand(["--flagfile=c.flags"])


def test_every_one_says_what_it_is():
    for path in FILES:
        assert re.match(r"[A-Z].*\w", flagfiles.about(path)), path
