"""One form for all public functions, and docstrings that say what a user needs."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import dropjax
from dropjax.evaluate import moments
from dropjax.ops import divergence
from dropjax.train import losses
from tests.conftest import ROOT

# Those that make no noise on an array.
NOT_OPS = {
    "derive",
    "deterministic",
    "dropconnect_moments",
    "keep_mask",
    "masksembles_masks",
    "max_dropout",
    "sampled",
}
OPS = {
    name: value
    for name, value in vars(dropjax).items()
    if name in dropjax.__all__ and inspect.isfunction(value) and name not in NOT_OPS
}
MODULES = [
    f"{package.__name__.rpartition('.')[2]}.{module.name}"
    for package in (dropjax.schemes, dropjax.functions)
    for module in pkgutil.iter_modules(package.__path__)
]
EXPECTED = {name: getattr(dropjax.expected, name) for name in dropjax.expected.__all__}


def of_users(module):
    """The functions of a module that say what they return, and in `moments` all."""
    return {
        f"{module.__name__}.{name}": value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
        if "\nReturns:" in (inspect.getdoc(value) or "") or module is moments
    }


PACKAGES = [dropjax.schemes, dropjax.functions, dropjax.blocks, dropjax.evaluate]
COSTLY = {
    name: function
    for module in (
        *[
            f"{package.__name__}.{module.name}"
            for package in PACKAGES
            for module in pkgutil.iter_modules(package.__path__)
        ],
        "dropjax.train.losses",
        "dropjax.ops.divergence",
    )
    for name, function in of_users(importlib.import_module(module)).items()
}
# All else that is exported but keys and draws.
COSTLY |= {
    f"{value.__module__}.{value.__name__}": value
    for value in (getattr(dropjax, name) for name in dropjax.__all__)
    if inspect.isfunction(value)
    and not value.__module__.startswith(("dropjax.core.", "dropjax.ops.keys"))
}
# What is as much a part of the scheme as its rate.
ALSO_BY_POSITION = {"dropblock": ["block_size"]}
over_ops = pytest.mark.parametrize("name", OPS)


def parameters(function):
    return list(inspect.signature(function).parameters.values())


@over_ops
def test_key_then_array_then_rate_or_what_is_for_it_then_options_by_keyword(name):
    first, second, third, *options = parameters(OPS[name])
    assert first.name == "key"
    assert second.name in ("x", "w")
    # A probability, a size, or the logarithm of what is learned.
    assert third.name in ("rate", "std", "alpha", "width") or third.name.startswith("log_")
    by_position = [option.name for option in options if option.kind is not option.KEYWORD_ONLY]
    assert by_position == ALSO_BY_POSITION.get(name, [])
    assert not {"rng", "rngs", "p", "prob", "keep_prob", "deterministic", "train"} & {
        option.name for option in options
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_the_expected_counterpart_takes_the_same_less_the_key(name):
    op = {p.name: p for p in parameters(OPS[name])}
    for parameter in parameters(EXPECTED[name]):
        assert op[parameter.name] == parameter
    assert "key" not in inspect.signature(EXPECTED[name]).parameters


@over_ops
def test_docstring_sections(name):
    text = inspect.getdoc(OPS[name]) or ""
    for section in ("Args:", "Returns:", "Raises:", "Cost:", "Source:", "Example:"):
        assert f"\n{section}" in text, f"{name} has no {section}"
    documented = re.findall(
        r"^  (\w+): ", text.partition("Args:")[2].partition("Returns:")[0], re.M
    )
    assert documented == [parameter.name for parameter in parameters(OPS[name])]


def check_cost(function):
    """It says how many random bits are drawn and what is kept for the backward pass."""
    text = inspect.getdoc(function) or ""
    found = re.search(r"^Cost: .*?(?=^\S|\Z)", text, re.M | re.S)
    assert found, "no Cost"
    cost = " ".join(found[0].split())
    assert "random bits" in cost, cost
    assert re.search(r"\b(kept|keeps?)\b", cost), cost
    sections = re.findall(r"^(Args|Returns|Raises|Cost|Source|Example):", text, re.M)
    order = ["Args", "Returns", "Raises", "Cost", "Source", "Example"]
    assert sections == [section for section in order if section in sections]


@pytest.mark.parametrize("name", COSTLY)
def test_cost_says_how_many_random_bits_and_what_is_kept(name):
    check_cost(COSTLY[name])


def test_no_function_is_left_out_of_the_costly_ones():
    exported = [*OPS.values(), *EXPECTED.values(), dropjax.keep_mask, dropjax.masksembles_masks]
    exported += [getattr(dropjax.blocks, name) for name in dropjax.blocks.__all__]
    assert set(exported) <= set(COSTLY.values())
    assert {"dropout", "variational_dropout", "zoneout", "dropconnect"} <= set(OPS)
    assert {losses.r_drop, moments.relu, divergence.kl_exact} <= set(COSTLY.values())


@pytest.mark.parametrize("name", MODULES)
def test_every_scheme_file_has_a_source_a_test_and_its_examples_run(name):
    module = importlib.import_module(f"dropjax.{name}")
    assert "\nSource: " in (module.__doc__ or "")
    test = "tests/{}/test_{}.py".format(*name.split("."))
    assert (ROOT / test).exists(), f"add {test}"
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_examples_of_the_ops_are_tested():
    modules = [importlib.import_module(f"dropjax.{name}") for name in MODULES]
    found = [test for module in modules for test in doctest.DocTestFinder().find(module)]
    assert sum(len(test.examples) for test in found) >= 2 * len(OPS)


@pytest.mark.parametrize("module", ["dropjax", "dropjax.expected", "dropjax.schemes"])
def test_all_is_sorted_and_exists(module):
    imported = importlib.import_module(module)
    assert all(hasattr(imported, name) for name in imported.__all__)
    assert len(set(imported.__all__)) == len(imported.__all__)
