"""One form for all block functions, and docstrings that say what a user needs."""

import doctest
import importlib
import inspect
import re

import jax
import jax.numpy as jnp
import pytest
from jax import export

from dropjax import blocks

# But for one that only counts.
FUNCTIONS = {name: getattr(blocks, name) for name in blocks.__all__ if name != "depth_rates"}
SECTIONS = ("Args:", "Returns:", "Raises:", "Cost:", "Source:", "Example:")


def test_all_is_sorted_and_lazily_imported():
    assert list(blocks.__all__) == sorted(set(blocks.__all__))
    assert __import__("dropjax").blocks is blocks


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_sections(name):
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    for section in SECTIONS:
        assert f"\n{section}" in text, f"{name} has no {section}"
    arguments = text.partition("Args:")[2].partition("Returns:")[0]
    documented = re.findall(r"^  (\w+): ", arguments, re.M)
    assert documented == list(inspect.signature(FUNCTIONS[name]).parameters)


X = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
CALLS = {
    "fractal_join": lambda key, x: blocks.fractal_join(key, x, 0.5, batch_axes=1),
    "layer_drop": lambda key, x: blocks.layer_drop(key, lambda x: 2 * x, x, 0.5),
    "max_pool_dropout": lambda key, x: blocks.max_pool_dropout(key, x, 0.5),
    "shake_shake": lambda key, x: blocks.shake_shake(key, x, 2 * x, batch_axes=0),
    "stochastic_depth": lambda key, x: blocks.stochastic_depth(key, lambda x: 2 * x, x, 0.5),
    "weighted_max_pool": lambda key, x: blocks.weighted_max_pool(x, 0.5),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_and_its_gradient_lower_for_every_platform(name):
    def total(key, x):
        return CALLS[name](key, x).astype("float32").sum()

    f = jax.jit(jax.grad(total, argnums=1))
    export.export(f, platforms=("cuda", "rocm", "tpu"))(jax.random.key(0), X)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_key_comes_first(name):
    first, *_ = inspect.signature(FUNCTIONS[name]).parameters
    assert first == "key" or "expectation" in (FUNCTIONS[name].__doc__ or "")


@pytest.mark.parametrize("name", ["fractal", "pooling", "shake"])
def test_examples_run(name):
    """Those of the other blocks, which are beside schemes, run in tests/test_signatures.py."""
    module = importlib.import_module(f"dropjax.blocks.{name}")
    assert "\nSource: " in (module.__doc__ or "")
    failed, tried = doctest.testmod(module)
    assert tried and not failed
