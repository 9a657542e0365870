"""Tables of compiled programs: CSV files of numbers, and bounds of single chips."""

import csv
import io

import pytest
from tables import programs

from coded_jax.report import table

TEXTS = {"machine", "experiment", "program", "mesh", "collectives, kB sent", "refused"}
TEXTS |= {*programs.ORIGIN}


def rows_of(section):
    """Returns the rows of a section's CSV file, by its columns."""
    (made,) = section.files.values()
    return [*csv.DictReader(io.StringIO(table.to_csv(made)))]


@pytest.mark.parametrize("name", programs.SECTIONS)
def test_a_csv_file_has_numbers_and_their_origin(name):
    rows = rows_of(programs.SECTIONS[name]())
    assert len(rows) > 20
    for row in rows:
        assert all(row[column] for column in programs.ORIGIN)
        values = [row[column] for column in {*row} - TEXTS if "bound by" not in column]
        if not row.get("refused"):
            assert all(float(value) >= 0 for value in values if value != "-")
        else:
            assert not any(values)


def program(figures=None, images=4, **fields):
    """Returns a stored program of two H100s, which need 8 GB of 80."""
    sent = {"count": 1, "sent": 1234e3}
    memory = {"arguments": 3e9, "outputs": 1e9, "temporaries": 3e9, "code": 1e9}
    figures = {"operations": 0.0, "moved": 0, "cycles": None, **(figures or {})}
    figures |= {
        "memory": memory,
        "collectives": {"all-gather": sent},
        "host": [],
        "fusions": 1,
    }
    compiled = {"images": images, "dtype": "float32", "mesh": [2, 1], "seconds": 1.0}
    compiled |= {"figures": figures, **fields}
    return {"name": f"coded inference of {images}", **compiled}


def test_figures_of_a_program():
    content = {"target": "h100:2", "operations_needed": 6e6}
    content["programs"] = [program({"operations": 8e6, "moved": 3350e4})]
    content["programs"].append(program({"operations": 4e6, "cycles": 8}))
    own, _ = programs.programs_of(content)
    cells = {name: text(own) for name, text in programs.FIGURES.items()}
    assert cells["Mflop per image"] == "2" and cells["kB of HBM per image"] == "8375"
    assert (cells["MB held"], cells["of HBM, %"]) == ("8000", "10")
    assert cells["collectives, kB sent"] == "1 all-gather 1234"
    assert (cells["bound, µs per image"], cells["bound by"]) == ("2.5", "HBM")
    summary = [programs.SUMMARY[name](own) for name in ("most memory, MB", "of HBM, %")]
    assert summary == ["8000", "10"] and programs.SUMMARY["compiled"](own) == "2"


def test_bounds_of_a_program_per_chip():
    local = lambda part, moved: program(
        {"moved": moved * 3.35e12}, name=f"local engine, {part} of 4"
    )
    content = {"target": "h100:2", "config": {"k": 2, "r": 1}}
    # Bytes of a query and of a share in each stage; links carry 450e9 per second.
    content["exchanged"] = [[450e9, 9e9], [450e9, 9e9]]
    content["programs"] = [program(), local("encoding", 1)]
    for stage in (1, 2):
        content["programs"].append(local(f"a piece of stage {stage}", 10 * stage))
        content["programs"].append(local(f"decoding stage {stage}", 100 * stage))
    own = programs.programs_of(content)[0]
    assert programs.on_one_host(own)
    # The front device has 2 of the 3 results, as many as are needed: none is sent.
    parts = {"encode": 1, "queries": 8, "piece": 60, "shares": 0, "decode": 300}
    assert programs.parts_of(own) == pytest.approx(parts)
    total = programs.FIRST_K["a program per chip"](own)
    assert float(total) == pytest.approx(1e6 * sum(parts.values()))
    content["config"] = {"k": 3, "r": 0}
    assert programs.parts_of(own)["shares"] == pytest.approx(4 * 2 * 9 / 450)
