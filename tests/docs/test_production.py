"""The files of `docs/guides/production.md`: read by the programs that they are for."""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from coded_jax.service.pool import LOSSES
from coded_jax.service.requests import ENDS, Metrics
from coded_jax.service.web.app import Exported
from tests.docs.test_pages import ROOT, page_blocks
from tests.scripts import run_command

PAGE = "docs/guides/production.md"


def file_of_page(name):
    """A file of the page, which its first comment names."""
    texts = [block.text for block in page_blocks(PAGE)]
    (text,) = (x for x in texts if re.search(rf"^# (\S*/)?{name}$", x, re.M))
    return text


def command_of_unit(name):
    """The words of `ExecStart`."""
    text = re.sub(r"\\\n\s*", "", file_of_page(name))
    return shlex.split(re.search(r"^ExecStart=(.*)$", text, re.M)[1])


def accepts(program, *arguments):
    if not shutil.which(program):
        pytest.skip(f"there is no {program}")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["coded_jax_ray.service", "coded_jax.service"])
def test_units(tmp_path, name):
    text = file_of_page(name).replace(command_of_unit(name)[0], sys.executable)
    (tmp_path / name).write_text(text.replace("Wants=coded_jax_ray.service\n", ""))
    accepted, output = accepts("systemd-analyze", "verify", str(tmp_path / name))
    assert accepted and name not in output, output


def test_the_firewall_lets_through_the_ports_of_the_unit():
    text = file_of_page("nftables.conf")
    allowed = set()
    for first, last in re.findall(
        r"\b(\d{4,})(?:-(\d+))?\b", text.split("dport", 2)[2]
    ):
        allowed |= {*range(int(first), int(last or first) + 1)}
    options = dict(re.findall(r"--([\w-]+)=(\d+)$", "\n".join(_ports()), re.M))
    assert len(options) == 8 and {*map(int, options.values())} <= allowed
    assert 44217 not in allowed


def _ports():
    return [x for x in command_of_unit("coded_jax_ray.service") if "-port=" in x]


def test_the_command_of_the_service():
    program, name, *arguments = command_of_unit("coded_jax.service")
    assert (pathlib.Path(program).name, name) == ("coded_jax", "serve")
    arguments = [x for x in arguments if not x.startswith("--flagfile")]
    done = run_command(name, *arguments, "--only_check_args")
    assert done.returncode == 0, done.stderr


def test_the_command_of_the_container():
    text = re.sub(r"\\\n\s*", "", file_of_page("Containerfile"))
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.M)
    program, name, *arguments = yaml.safe_load(entry)
    assert (program, name) == ("coded_jax", "serve")
    arguments = [x for x in arguments if not x.startswith("--flagfile")]
    done = run_command(name, *arguments, "--only_check_args")
    assert done.returncode == 0, done.stderr


def test_the_metrics_of_the_table():
    pytest.importorskip("prometheus_client")
    text = (ROOT / PAGE).read_text()
    table = text.split("| Metric |")[1].split("```")[0]
    listed = re.findall(r"`(coded_jax_\w+)[`{]", table)
    of_service = {"obstacle": None, "cluster_restarts": 0}
    summary = {**Metrics().summary([]), **of_service}
    families = Exported(lambda: summary).collect()
    names = {f.name + "_total" * (f.type == "counter") for f in families}
    assert {*listed} == names
    assert all(f"`{word}`" in text for word in (*LOSSES, *ENDS))
