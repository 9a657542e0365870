"""Stored results say where they come from, in a source tree and out of one."""

import subprocess

import pytest

from coded_jax.runs import provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A source tree with one commit."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "coded_jax").mkdir()
    (tmp_path / "coded_jax" / "a.py").write_text("1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_the_commit_of_a_source_tree(tree, monkeypatch):
    head = git(tree, "rev-parse", "HEAD")
    (tree / "runs").mkdir()
    (tree / "runs" / "results.json").write_text("{}")  # not code
    assert provenance.commit(tree) == head
    assert provenance.code_version(tree).endswith(head)
    (tree / "coded_jax" / "a.py").write_text("2\n")
    assert provenance.commit(tree) == f"{head}+dirty"
    assert provenance.code_version(tree) is None
    git(tree, "commit", "-qam", "second")
    second = git(tree, "rev-parse", "HEAD")
    # A hook of another repository is not heeded.
    monkeypatch.setenv("GIT_DIR", str(tree / "nowhere"))
    assert provenance.commit(tree) == second != head
    (tree / "coded_jax" / "b.py").write_text("")  # a new module
    assert provenance.commit(tree).endswith("+dirty")
    monkeypatch.setenv("PATH", "/nowhere")  # without Git nothing says that it is clean
    assert provenance.commit(tree) is provenance.code_version(tree) is None
