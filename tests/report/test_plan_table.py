"""The table of a plan fits a terminal."""

from rich.console import Console

from coded_jax.report import plan_table
from tests.costs import costs_of


def test_table_fits_a_terminal(capsys):
    costs = costs_of(
        (32, 32, 3),
        base_model="resnet18",
        stages=((1, 2), (3, 4), (5, 5)),
        k=4,
        r=2,
        grid=(2, 2),
    )
    Console(width=80).print(plan_table.table(costs, 2))
    assert "…" not in capsys.readouterr().out
