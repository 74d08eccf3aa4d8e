"""Names by file, names added, and classes from anyone's module."""

import inspect
import re
import sys
import textwrap

import pytest

import dropjax.blocks
from dropjax import schemes
from dropjax.core.registry import Registry
from dropjax.core.scheme import SCHEMES, Chain, Scheme
from dropjax.models import MODELS
from dropjax.models.mlp import MLP
from dropjax.models.rnn import RNN
from dropjax.schemes.bernoulli import Bernoulli
from dropjax.schemes.zoneout import Zoneout

USER_MODULE = """
from typing import ClassVar

from dropjax.core.site import Kind
from dropjax.schemes import Rate, Scheme, scheme


@scheme
class Halve(Scheme):
    rate: Rate = 0.5
    steps: int = 2

    acts_on: ClassVar = frozenset({Kind.HIDDEN})


class Other:
    pass
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules that can be imported until the test ends: `modules({path: source})`."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(files):
        for path, source in files.items():
            file = tmp_path / path
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(source))

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def registry(monkeypatch):
    """The registry of schemes, which forgets at the end of the test what is added to it."""
    monkeypatch.setattr(SCHEMES, "_added", {})
    return SCHEMES


def test_every_file_is_a_name():
    assert {"bernoulli", "dropconnect", "none", "variational", "zoneout"} < set(schemes.names())
    assert schemes.names() == sorted(schemes.names())
    assert MODELS.names() == ["cnn", "mlp", "rnn", "transformer"]
    assert SCHEMES.find("zoneout") is Zoneout
    assert MODELS.find("rnn") is RNN
    for registry in (SCHEMES, MODELS):
        for name in registry.names():
            assert registry.name_of(registry.find(name)) == name


def test_a_new_file_is_a_new_name(modules):
    base = "class Base: pass\n"
    modules(
        {
            "dropjax_test_parts/__init__.py": base,
            "dropjax_test_parts/b.py": "from dropjax_test_parts import Base\nclass B(Base): pass",
            "dropjax_test_parts/a.py": "from dropjax_test_parts.b import Base, B\nclass A(B): pass",
            "dropjax_test_parts/helpers.py": "from dropjax_test_parts.a import A, B",
        }
    )
    import dropjax_test_parts as parts

    registry = Registry("dropjax_test_parts", parts.Base, "part")
    assert registry.names() == ["a", "b"]  # a module that only imports classes defines no name
    assert registry.find("a").__name__ == "A"
    assert registry.name_of(registry.find("b")) == "b"
    with pytest.raises(ValueError, match=r"no part 'helpers'\. There are: a, b"):
        registry.find("helpers")


def test_two_classes_in_a_file_are_refused_unless_it_is_one_of_parts(modules):
    two = "from dropjax_test_two import Base\nclass A(Base): pass\nclass B(Base): pass"
    modules({"dropjax_test_two/__init__.py": "class Base: pass", "dropjax_test_two/two.py": two})
    import dropjax_test_two

    with pytest.raises(TypeError, match=r"dropjax_test_two\.two defines more than one whole"):
        Registry("dropjax_test_two", dropjax_test_two.Base, "whole").names()
    registry = Registry("dropjax_test_two", dropjax_test_two.Base, "whole", parts=("two",))
    assert registry.names() == []
    assert registry.name_of(registry.find("dropjax_test_two.two:A")) == "dropjax_test_two.two:A"


FUNCTIONS = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (dropjax, dropjax.blocks)
    for name in package.__all__
    if inspect.isfunction(getattr(package, name)) and name not in SCHEMES.names()
}


@pytest.mark.parametrize("path", FUNCTIONS)
def test_a_function_s_name_leads_to_its_scheme_or_says_that_it_has_none(path):
    name, module = path.rpartition(".")[2], FUNCTIONS[path].__module__
    stem = module.removeprefix("dropjax.schemes.")
    said = f"{path} is a function without a scheme, for code of your own"
    if stem in SCHEMES.names():
        said = f"the scheme of {path} is {stem}"
    for text in (name, f"{name}(rate=0.5)", f"bernoulli|{name}"):
        with pytest.raises(
            ValueError, match=rf"^no scheme '{name}': {re.escape(said)}\. There are:"
        ):
            schemes.parse(text)


def test_functions_of_other_packages_and_names_like_them():
    for name, said in {
        "r_drop": ": dropjax.train.r_drop is a function without a scheme",
        "droppath": "; did you mean stochastic_depth, the scheme of dropjax.drop_path[?]",
        "GaussianDropout": "; did you mean gaussian, the scheme of dropjax.gaussian_dropout[?]",
    }.items():
        with pytest.raises(ValueError, match=f"^no scheme '{name}'{said}"):
            SCHEMES.find(name)


def test_a_class_from_a_users_module(modules):
    modules({"dropjax_test_user.py": USER_MODULE})
    scheme = schemes.parse("dropjax_test_user:Halve(rate=0.25,steps=3)|bernoulli")
    halve = scheme.links[0]
    assert (type(halve).__name__, halve.rate, halve.steps) == ("Halve", 0.25, 3)
    assert str(halve) == "dropjax_test_user:Halve(rate=0.25,steps=3)"
    assert schemes.parse(str(scheme)) == scheme
    assert schemes.parse("dropjax_test_user:Halve", rate=0.125).rate == 0.125
    assert "dropjax_test_user:Halve" not in schemes.names()
    with pytest.raises(TypeError, match=r"Halve: steps must be an integer, got 0\.5"):
        schemes.parse("dropjax_test_user:Halve(steps=0.5)")
    with pytest.raises(ValueError, match="Halve has no argument 'x'; it takes at, rate, steps"):
        schemes.parse("dropjax_test_user:Halve(x=1)")


def test_a_built_in_class_by_module_is_itself():
    assert schemes.parse("dropjax.schemes.bernoulli:Bernoulli(rate=0.1)") == Bernoulli(0.1)
    assert SCHEMES.name_of(Bernoulli) == "bernoulli"


@pytest.mark.parametrize(
    "name, match",
    [
        ("dropjax_no_such_module:A", "cannot import the scheme 'dropjax_no_such_module:A'"),
        ("dropjax.schemes.bernoulli:Bern", "cannot import the scheme .*has no attribute 'Bern'"),
        ("dropjax.models.mlp:MLP", "'dropjax.models.mlp:MLP' is not a scheme: Scheme is its base"),
        ("os:system", "'os:system' is not a scheme"),
        ("math:pi", "'math:pi' is not a scheme"),
    ],
)
def test_what_cannot_be_imported_as_a_scheme(name, match):
    with pytest.raises(ValueError, match=match):
        SCHEMES.find(name)


def test_register(modules, registry):
    modules({"dropjax_test_register.py": USER_MODULE})
    from dropjax_test_register import Halve

    before = schemes.names()
    schemes.register("halve", Halve)
    assert schemes.names() == sorted([*before, "halve"])
    assert schemes.parse("halve(rate=0.25)") == Halve(0.25)
    assert str(Halve(0.25)) == "halve(rate=0.25)"
    assert schemes.parse(str(Chain((Halve(), Bernoulli())))) == Chain((Halve(), Bernoulli()))
    with pytest.raises(ValueError, match="did you mean halve"):
        schemes.parse("halv")
    assert "halve" not in MODELS.names()


def test_a_name_is_registered_once(registry):
    class Mine(Scheme):
        pass

    schemes.register("mine", Mine)
    for name in ("mine", "bernoulli", "none"):
        with pytest.raises(ValueError, match=f"there is already a scheme named '{name}'"):
            schemes.register(name, Mine)
    assert SCHEMES.find("bernoulli") is Bernoulli


@pytest.mark.parametrize("what", [MLP, Bernoulli(), "bernoulli", None, int, lambda: Bernoulli()])
def test_only_schemes_are_registered(what, registry):
    with pytest.raises(TypeError, match="is not a scheme: Scheme is its base"):
        schemes.register("mine", what)
    assert "mine" not in schemes.names()
