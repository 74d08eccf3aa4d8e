"""Imports go one way."""

import ast
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

# What the modules of each layer may import, besides the standard library and their own layer.
ALLOWED = {
    "ops": {"jax", "numpy"},
    "core": {"jax", "numpy", "ops"},
    "schemes": {"jax", "numpy", "ops", "core"},
    "functions": {"jax", "numpy", "ops"},
    "blocks": {"jax", "numpy", "ops", "core", "schemes"},
    "nn": {"jax", "numpy"},
    "disk": set(),
    "models": {"jax", "numpy", "flax", "ops", "core", "nn", "evaluate"},
    "train": {"jax", "numpy", "optax", "safetensors", "ops", "core", "disk"},
    "evaluate": {"jax", "numpy", "ops", "core"},
    "compare": {"numpy", "scipy"},
    "data": {"PIL", "numpy", "sklearn", "tensorflow_datasets", "tqdm"},
    "runs": {"jax", "numpy", "flax", "ops", "core", "models", "train", "evaluate", "disk"},
    "linen": {"jax", "flax", "core"},
    "nnx": {"jax", "flax", "core"},
    "equinox": {"jax", "equinox", "core"},
    # dropjax/__init__.py and dropjax/expected.py
    "": {"ops", "core", "schemes", "functions", "blocks"},
}
STANDARD = set(sys.stdlib_module_names)
FILES = sorted((ROOT / "dropjax").rglob("*.py"))


def layer_of(path: Path) -> str:
    first, *rest = path.relative_to(ROOT / "dropjax").parts
    name = first.removesuffix(".py")
    return name if rest or name in ALLOWED else ""


def imported(path: Path) -> set[str]:
    """Top-level packages and layers of dropjax that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            found.add(rest[0] if first == "dropjax" and rest else first)
    return found - STANDARD


def test_every_layer_has_a_rule():
    assert {layer_of(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path):
    layer = layer_of(path)
    if layer == "":
        layers = {"expected", *ALLOWED}
        assert imported(path) <= layers and imported(path) & set(ALLOWED) <= ALLOWED[""]
    else:
        assert imported(path) <= ALLOWED[layer] | {layer}


def test_only_one_place_knows_of_pmap():
    nodes = ((path.name, node) for path in FILES for node in ast.walk(ast.parse(path.read_text())))
    assert {name for name, node in nodes if getattr(node, "attr", "") == "pmap"} == {"devices.py"}


def test_importing_dropjax_needs_jax_alone_and_the_rest_is_imported_when_it_is_used(python):
    """Neither Flax nor anything else of the dependencies, and no op imports them later."""
    script = """
import sys, jax
import numpy, scipy  # jax imports them, some of it late
before = set(sys.modules)
import dropjax
x, key = jax.numpy.ones((3, 4)), jax.random.key(0)
dropjax.dropout(key, x, 0.5), dropjax.variational_dropout(key, x, 0.5)
dropjax.zoneout(key, x, 0.5, previous=x), dropjax.dropconnect(key, x, 0.5)
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(new & {"equinox", "flax", "optax", "absl", "sklearn", "matplotlib",
                    "tensorflow_datasets", "tensorflow", "safetensors", "tqdm"}))
for name in ("blocks", "compare", "data", "equinox", "evaluate", "linen", "models", "nnx", "runs",
             "train"):
    assert getattr(dropjax, name).__name__ == f"dropjax.{name}"
try:
    dropjax.nonsense
except AttributeError as error:
    print(error)
import experiments.mnist
print("tensorflow" in sys.modules)
"""
    done = python("-c", script)
    nonsense = "module 'dropjax' has no attribute 'nonsense'"
    assert done.stdout.splitlines() == ["[]", nonsense, "False"], done.stderr
