"""What the modules of experiments may import of each other."""

import ast

import pytest

from tests.conftest import ROOT

RUNNER = ("cells", "grid", "ray_engine", "runner", "store", "trainer")


def imported(name: str) -> set[str]:
    """The modules that a module of an ablation imports, anywhere in it."""
    tree = ast.parse((ROOT / "experiments" / "ablation" / f"{name}.py").read_text())
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_every_module_of_an_ablation_is_of_the_runner_or_joins_it_with_the_report():
    files = {path.stem for path in (ROOT / "experiments" / "ablation").glob("*.py")}
    assert files == {"__init__", "ablate", *RUNNER}


@pytest.mark.parametrize("name", RUNNER)
def test_what_runs_cells_imports_nothing_of_the_report(name):
    assert not [module for module in imported(name) if "ablation.report" in module]
    assert "experiments.ablation.ablate" not in {m.rpartition(".")[0] for m in imported(name)}
