"""A workdir belongs to one run."""

import pytest

from coded_jax.runs import workdir
from coded_jax.runs.workdir import RunFlags
from tests.errors import refused

FLAGS = {"k": "2", "seed": "0", "dilations": "1,2"}


def test_the_same_flags_take_it_up_again(tmp_path):
    path = tmp_path / "a" / "b"
    assert not workdir.open_workdir(path, RunFlags(FLAGS), write=False).exists()
    folder = workdir.open_workdir(path, RunFlags(FLAGS, {"devices": "3"}))
    assert workdir.open_workdir(path, RunFlags(FLAGS, {"devices": "1"})) == folder
    text = (folder / "flags.txt").read_text()
    assert text.startswith("# coded_jax==") and f"\n--workdir={folder}\n" in text
    assert "\n--devices=3\n" in text
    assert "\n--dilations=1,2\n" in text


def test_other_flags_are_refused_by_name(tmp_path):
    folder = workdir.open_workdir(tmp_path, RunFlags(FLAGS))
    before = (folder / "flags.txt").read_text()
    new_flags = {"k": "4", "dilations": "1,2", "l": "1", "seed": "0"}
    with pytest.raises(ValueError, match="^workdir: ") as error:
        workdir.open_workdir(tmp_path, RunFlags(new_flags))
    message = str(error.value)
    assert "k=2 there and 4 now" in message
    assert "l=unset there and 1 now" in message
    assert "seed" not in message and "\n" not in message
    assert (folder / "flags.txt").read_text() == before


def test_more_of_the_same_run_is_no_other_run(tmp_path):
    one = RunFlags({**FLAGS, "seeds": "1"}, {"devices": "3"})
    folder = workdir.open_workdir(tmp_path, one)
    more = {**FLAGS, "seeds": "5", "tried": "3"}
    workdir.open_workdir(tmp_path, RunFlags(more, {"devices": "1"}), write=False)
    assert workdir.read_flags(folder) == {**FLAGS, "seeds": "1"}
    workdir.open_workdir(tmp_path, RunFlags(more, {"devices": "1"}))
    assert workdir.read_flags(folder) == more
    assert "\n--devices=1\n" in (folder / "flags.txt").read_text()
    with pytest.raises(ValueError, match="k=2 there and 4 now") as error:
        workdir.open_workdir(tmp_path, RunFlags({**more, "k": "4", "seeds": "2"}))
    assert "seeds" not in str(error.value)


def test_a_baseline_is_never_another_function_of_its_name(tmp_path):
    """It may be added and left out, but its checkpoints are those of one function."""
    mark = f"{workdir.BASELINE_MARK}my.codes:sums"
    workdir.open_workdir(tmp_path, RunFlags(FLAGS))
    for fixed in ({**FLAGS, mark: "1"}, FLAGS, {**FLAGS, mark: "1"}):
        workdir.open_workdir(tmp_path, RunFlags(fixed))
        assert workdir.read_flags(tmp_path) == {**FLAGS, mark: "1"}
    with pytest.raises(ValueError, match=f"{mark}=1 there and 2 now"):
        workdir.open_workdir(tmp_path, RunFlags({**FLAGS, mark: "2"}))


def test_a_flag_that_did_not_exist_then_had_its_default(tmp_path):
    workdir.open_workdir(tmp_path, RunFlags(FLAGS))
    defaults = {"precision": "float32", "k": "3"}
    now = {**FLAGS, "precision": "float32"}
    workdir.open_workdir(tmp_path, RunFlags(now, defaults=defaults))
    with pytest.raises(ValueError, match="precision=float32 there and bfloat16 now"):
        now = {**FLAGS, "precision": "bfloat16"}
        workdir.open_workdir(tmp_path, RunFlags(now, defaults=defaults))


def test_what_is_no_workdir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", "/proc/run", ""):
        with refused("workdir"):
            workdir.open_workdir(path, RunFlags(FLAGS))
    for path in (tmp_path, tmp_path / "nowhere"):
        with refused("workdir"):
            workdir.read_results(path)
    (tmp_path / "checkpoints").mkdir()  # a run without flags
    with refused("workdir"):
        workdir.open_workdir(tmp_path, RunFlags(FLAGS))


def test_kernels_are_recorded_and_a_change_of_them_is_told(tmp_path, caplog):
    flags = RunFlags({"k": "2"}, kernels="oneDNN 3.2.0")
    folder = workdir.open_workdir(tmp_path / "run", flags)
    text = (folder / "flags.txt").read_text()
    assert "\n# convolutions: oneDNN 3.2.0\n" in text
    with caplog.at_level("WARNING"):
        workdir.open_workdir(folder, flags)
        assert not caplog.records
        workdir.open_workdir(folder, flags._replace(kernels="XLA"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "begun with convolutions of oneDNN 3.2.0, goes on with those of XLA" in line
    assert (folder / "flags.txt").read_text() == text
