"""A workdir belongs to one run."""

import pytest

from coded_jax.runs import workdir
from tests.errors import refused

FLAGS = {"k": "2", "seed": "0", "dilations": "1,2"}


def test_the_same_flags_take_it_up_again(tmp_path):
    path = tmp_path / "a" / "b"
    assert not workdir.open_workdir(path, FLAGS, write=False).exists()
    folder = workdir.open_workdir(path, FLAGS, places={"devices": "3"})
    assert workdir.open_workdir(path, FLAGS, places={"devices": "1"}) == folder
    text = (folder / "flags.txt").read_text()
    assert text.startswith("# coded_jax==") and f"\n--workdir={folder}\n" in text
    assert "\n--devices=3\n" in text
    assert "\n--dilations=1,2\n" in text


def test_other_flags_are_refused_by_name(tmp_path):
    folder = workdir.open_workdir(tmp_path, FLAGS)
    before = (folder / "flags.txt").read_text()
    new_flags = {"k": "4", "dilations": "1,2", "l": "1", "seed": "0"}
    with pytest.raises(ValueError, match="^workdir: ") as error:
        workdir.open_workdir(tmp_path, new_flags)
    message = str(error.value)
    assert "k=2 there and 4 now" in message
    assert "l=unset there and 1 now" in message
    assert "seed" not in message and "\n" not in message
    assert (folder / "flags.txt").read_text() == before


def test_more_of_the_same_run_is_no_other_run(tmp_path):
    one = {**FLAGS, "seeds": "1"}
    folder = workdir.open_workdir(tmp_path, one, places={"devices": "3"})
    more = {**FLAGS, "seeds": "5", "tried": "3"}
    workdir.open_workdir(tmp_path, more, places={"devices": "1"}, write=False)
    assert workdir.read_flags(folder) == {**FLAGS, "seeds": "1"}
    workdir.open_workdir(tmp_path, more, places={"devices": "1"})
    assert workdir.read_flags(folder) == more
    assert "\n--devices=1\n" in (folder / "flags.txt").read_text()
    with pytest.raises(ValueError, match="k=2 there and 4 now") as error:
        workdir.open_workdir(tmp_path, {**more, "k": "4", "seeds": "2"})
    assert "seeds" not in str(error.value)


def test_a_flag_that_did_not_exist_then_had_its_default(tmp_path):
    workdir.open_workdir(tmp_path, FLAGS)
    now = {**FLAGS, "precision": "float32"}
    workdir.open_workdir(tmp_path, now)
    with pytest.raises(ValueError, match="precision=float32 there and bfloat16 now"):
        now = {**FLAGS, "precision": "bfloat16"}
        workdir.open_workdir(tmp_path, now)


def test_settings_that_are_no_more_count_only_with_another_value(tmp_path):
    workdir.open_workdir(tmp_path / "a", {**FLAGS, "fixed_sums": "False"})
    workdir.open_workdir(tmp_path / "a", FLAGS)
    workdir.open_workdir(tmp_path / "b", {**FLAGS, "fixed_sums": "True"})
    with pytest.raises(ValueError, match="fixed_sums=True there and unset now"):
        workdir.open_workdir(tmp_path / "b", FLAGS)


def test_what_is_no_workdir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", "/proc/run", ""):
        with refused("workdir"):
            workdir.open_workdir(path, FLAGS)
    for path in (tmp_path, tmp_path / "nowhere"):
        with refused("workdir"):
            workdir.read_results(path)
    for text in ("", "[]", "{}"):
        (tmp_path / "results.json").write_text(text)
        with refused("workdir"):
            workdir.read_results(tmp_path)
    (tmp_path / "checkpoints").mkdir()  # a run without flags
    with refused("workdir"):
        workdir.open_workdir(tmp_path, FLAGS)
