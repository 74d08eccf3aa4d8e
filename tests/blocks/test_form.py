"""One form for all block functions, and docstrings that say what a user needs."""

import doctest
import importlib
import inspect
import re

import pytest

from dropjax import blocks

FUNCTIONS = {name: getattr(blocks, name) for name in blocks.__all__}
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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_key_comes_first_and_examples_run(name):
    first, *_ = inspect.signature(FUNCTIONS[name]).parameters
    assert first == "key" or "expectation" in (FUNCTIONS[name].__doc__ or "")
    module = importlib.import_module(FUNCTIONS[name].__module__)
    assert "\nSource: " in (module.__doc__ or "")
    failed, tried = doctest.testmod(module)
    assert tried and not failed
