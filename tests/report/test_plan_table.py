"""The table of a plan fits a terminal."""

from rich.console import Console

from coded_jax.report import plan_table
from tests.costs import cost_of, costs_of


def test_table_fits_a_terminal(capsys):
    settings = {"base_model": "resnet18", "stages": ((1, 2), (3, 4), (5, 5))}
    settings |= {"k": 4, "r": 2, "grid": (2, 2)}
    stages, cost = (of((32, 32, 3), **settings) for of in (costs_of, cost_of))
    Console(width=80).print(plan_table.table(stages, cost, 2))
    shown = " ".join(capsys.readouterr().out.split())
    assert "…" not in shown
    moved = (cost.bytes_in + cost.bytes_out) / 1e3
    assert f"moves {moved:.1f} kB per image in 3 rounds" in shown
    assert f"{cost.client_total / cost.whole_flops:.3f} of all blocks' work" in shown
