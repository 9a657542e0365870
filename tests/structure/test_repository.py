"""Files beside the package: the workflow, and the citation."""

import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

import coded_jax

ROOT = pathlib.Path(__file__).parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yml"
COMMANDS = {
    name: block
    for name, block in re.findall(
        r"^<!-- command: (\w+) -->\n```bash\n(.*?)^```$",
        (ROOT / "README.md").read_text(),
        re.M | re.S,
    )
}


def steps(job):
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return [step["run"] for step in jobs[job]["steps"] if "run" in step]


@pytest.mark.parametrize("name", ["main", "tests"])
def test_a_command_of_the_readme_is_found(name):
    command = [ROOT / ".ci/readme_command", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == COMMANDS[name]


def test_the_workflow_runs_the_commands_of_the_readme_and_no_others(tmp_path):
    """In a copy whose README has other commands, which say that they ran."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/readme_command", tmp_path / ".ci")
    assert [*COMMANDS] == ["main", "tests"] and len(steps("readme")) == 2
    text = (ROOT / "README.md").read_text()
    for name, block in COMMANDS.items():
        text = text.replace(block, f"false || echo {name} &&\necho ran\n", 1)
    (tmp_path / "README.md").write_text(text)
    environment = {"RUNNER_TEMP": str(tmp_path), "PATH": "/usr/bin:/bin"}
    run = lambda script: subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    printed = [run(script).stdout for script in steps("readme")]
    assert printed == ["main\nran\n", "tests\nran\n"]
    (tmp_path / "README.md").write_text(text.replace("<!-- command:", "<!--"))
    assert [run(script).returncode for script in steps("readme")] == [2, 2]


def test_the_workflow_has_the_versions_few_rights_and_pinned_actions():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert jobs["readme"]["strategy"]["matrix"] == {"python": ["3.11", "3.13"]}
    used = [s["uses"] for job in jobs.values() for s in job["steps"] if "uses" in s]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)
    assert not any("permissions" in job for job in jobs.values())
    assert steps("docs") == ["pip install nox", "nox -s docs"]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == coded_jax.__version__
    (paper,) = citation["references"]
    assert paper["title"].startswith(
        "Non-Linear Erasure Code for Distributed Inference"
    )


def test_the_page_for_contributors_has_the_command_of_the_readme_and_files_there_are():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"```bash\n{COMMANDS['tests']}```" in text
    paths = re.findall(r"\]\((?!https:)([^)#]+)", text)
    paths += re.findall(r"`((?:coded_jax|experiments)/[\w/.]*|\.github)`", text)
    assert len(paths) > 8 and all((ROOT / path).exists() for path in paths)
