"""The tree that `train.keys` draws is the tree that training and evaluation walk down."""

import dataclasses
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax import models, sampled
from dropjax.core.site import Kind, Site
from dropjax.ops import keys as ops_keys
from dropjax.runs import Network
from dropjax.schemes import parse
from dropjax.train import Problem, State, augment, keys, r_drop
from dropjax.train.objectives import OBJECTIVES
from dropjax.train.step import Step, on_one_device
from tests.conftest import ROOT

CLASSIFICATION = OBJECTIVES["classification"]
EXAMPLES, BATCH, WIDTH = 6, 2, 4
SITES = ("input", "layer_0/linear", "layer_0/hidden", "head/linear", "branch", "heads")
"""Of the models here, and of the schemes with labels of their own."""


@dataclasses.dataclass(eq=False)
class Node:
    """A line of the tree: its label as it is drawn, and the lines below it."""

    label: str
    below: "list[Node]" = dataclasses.field(default_factory=list)

    def takes(self, label: Any) -> bool:
        """Whether a label of a `derive` call is this line's."""
        if self.label.startswith('"'):
            pattern = re.sub(r" i$", r" \\d+", self.label.strip('"'))
            return isinstance(label, str) and re.fullmatch(pattern, label) is not None
        return label in SITES if self.label == "site" else not isinstance(label, str)


def drawn(text: str) -> dict[str, Node]:
    """The parts of a drawn tree by their names in capitals."""
    parts: dict[str, Node] = {}
    above: list[Node] = []
    for line in filter(str.strip, text.splitlines()):
        depth, rest = (len(line) - len(line.lstrip())) // 2, line.strip()
        node = Node(re.split(r"\s{2,}", rest)[0])
        above[depth:] = [node]
        if depth:
            above[depth - 1].below.append(node)
        else:
            parts[node.label] = node
    return parts


def tree_in(docstring: str) -> str:
    """The lines of the tree: those that are indented, from RUN on."""
    block = docstring[docstring.index("    RUN") :]
    return textwrap.dedent(block[: re.search(r"\n\S", block).start()]).strip()  # type: ignore[union-attr]


TREE = tree_in(str(keys.__doc__))


class Walk:
    """Where each `derive` call of the code is in the tree, from the key that it was given."""

    def __init__(self, run_key: jax.Array) -> None:
        self.paths: list[tuple[Any, ...]] = []
        self.by_words: dict[tuple[int, ...], set[tuple[Any, ...]]] = {}
        self._known: list[tuple[jax.Array, tuple[Any, ...]]] = []
        self.know(run_key, ())

    def know(self, key: jax.Array, path: tuple[Any, ...]) -> jax.Array:
        self._known.append((key, path))
        if words := words_of(key):
            self.by_words.setdefault(words, set()).add(path)
        return key

    def path_of(self, key: jax.Array) -> tuple[Any, ...]:
        """Of the very object; or, of a key that was copied to a device, of an equal one."""
        for known, path in self._known:
            if known is key:
                return path
        paths = self.by_words.get(words_of(key), set())
        assert paths, f"derive was given {key}, which does not lie below the run's key"
        return next(iter(paths))

    def derive(self, key: jax.Array, *labels: Any) -> jax.Array:
        path = self.path_of(key)
        for label in labels:
            key, path = real_derive(key, label), (*path, plain(label))
            self.paths.append(path)
            self.know(key, path)
        return key

    def check_key(self, key: jax.Array, name: str = "key") -> jax.Array:
        return self.know(real_check_key(key, name), self.path_of(key))


real_derive, real_check_key = ops_keys.derive, ops_keys.check_key


def plain(label: Any) -> str | int | None:
    """A label as a Python value; None for a number that is traced."""
    if isinstance(label, str):
        return label
    return None if isinstance(label, jax.core.Tracer) else int(label)


def words_of(key: jax.Array) -> tuple[int, ...]:
    """The words of a key; () of one that is traced."""
    if isinstance(key, jax.core.Tracer):
        return ()
    with jax.ensure_compile_time_eval():
        return tuple(np.asarray(jax.random.key_data(key)).tolist())


@pytest.fixture
def walk(monkeypatch) -> Iterator[Walk]:
    """Watches every module that derives keys."""
    watching = Walk(jax.random.key(3))
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "dropjax":
            for real, watched in (
                (real_derive, watching.derive),
                (real_check_key, watching.check_key),
            ):
                if vars(module).get(real.__name__) is real:
                    monkeypatch.setattr(module, real.__name__, watched)
    yield watching


RUN_KEY = jax.random.key(3)
X = np.ones((EXAMPLES, WIDTH), np.float32)
Y = np.arange(EXAMPLES, dtype=np.int32) % 3


def a_step(problem: Problem, params: Any) -> State:
    """Traces what `Program` compiles: the first state, which is returned, and a step from it."""
    step = Step(problem, EXAMPLES, BATCH, (jax.devices()[0],)).with_sites(X[0], params, {})
    state = step.state(RUN_KEY, X[0], params, {}, ["loss", "accuracy"])
    order, noise_key = keys.order_of(RUN_KEY, 0, EXAMPLES), keys.noise_key_of(RUN_KEY)
    data, zero = (jnp.asarray(X), jnp.asarray(Y)), jnp.int32(0)
    on_one_device(lambda: step(jnp.int32(1), state, noise_key, data, order, zero, zero))
    return state


def train_and_evaluate(dropout: str, model: str = f"mlp(widths=({WIDTH},))", **losses: Any) -> None:
    """What a run does: initial parameters, a step, and two Monte-Carlo samples."""
    network = Network(models.parse(model, 3), parse(dropout))
    params, mutable = network.init(keys.init_key_of(RUN_KEY), X[0])
    functions = (network.forward, CLASSIFICATION)
    if losses:
        functions = r_drop(*functions, **losses)
    state = a_step(Problem(*functions, network.scheme, optax.sgd(0.1)), params)
    values = state.params | {"mutable": mutable, "strength": 1.0}
    with jax.disable_jit():  # or the keys would be other objects inside of compiled functions
        network.monte_carlo(values, X[:1], keys.eval_key_of(RUN_KEY), samples=2, batch_size=1)


def train_on_changed_examples() -> None:
    problem = Problem(
        lambda params, x, key: x @ params,
        *(CLASSIFICATION, None, optax.sgd(0.1)),
        augment=lambda key, x: x + jax.random.normal(key, x.shape),
        mix=augment.mixup(),
    )
    a_step(problem, jnp.ones((WIDTH, 3)))
    image = jnp.ones((4, 4, 1))
    key = keys.augment_key_of(keys.step_key_of(keys.noise_key_of(RUN_KEY), 0), 1)
    for text in (*augment.CHANGES, "flip|flip"):
        augment.parse(text)(key, image)
    key = keys.mix_key_of(keys.step_key_of(keys.noise_key_of(RUN_KEY), 0), 1)
    augment.cutmix()(key, image, image)


def train_a_batched_model() -> None:
    def model(params: Any, xs: Any, key: jax.Array) -> jax.Array:
        return xs @ params + jax.random.normal(key, (len(xs), 3))

    problem = Problem(model, CLASSIFICATION, None, optax.sgd(0.1), batched=True)
    a_step(problem, jnp.ones((WIDTH, 3)))


def draw_several_things() -> None:
    """The schemes that have labels of their own, alone and in a chain."""
    image, places = ("height", "width", "feature"), (4, 4, 2)
    sites = {
        "cutout": Site("input", Kind.INPUT, image),
        "random_erasing(fill='noise')": Site("input", Kind.INPUT, image),
        "shake_drop": Site("branch", Kind.BRANCH, image, depth=0.5),
        "head_drop": Site("heads", Kind.HEADS, ("head", "time", "feature")),
    }
    for text, site in sites.items():
        for scheme in (parse(text), parse(f"{text}|{text}")):
            draw = sampled(scheme, keys.keys_of(RUN_KEY, 0, 1))
            with jax.disable_jit():
                draw.noise(site, places)


RUNS = {
    "a chain": lambda: train_and_evaluate("bernoulli|gaussian"),
    "noise on weights": lambda: train_and_evaluate("dropconnect"),
    "a scheme that learns": lambda: train_and_evaluate("concrete"),
    "a chain that learns": lambda: train_and_evaluate("bernoulli|concrete"),
    "R-Drop": lambda: train_and_evaluate("bernoulli|gaussian", alpha=0.5),
    "a batched model": train_a_batched_model,
    "changed examples": train_on_changed_examples,
    "own labels": draw_several_things,
}


class Tree:
    """The drawn tree, which notes the lines that were met."""

    def __init__(self, text: str) -> None:
        self.parts, self.met = drawn(text), set[Node]()

    def lines(self) -> set[Node]:
        """Every line that stands for a label."""
        found, left = set(), [node for part in self.parts.values() for node in part.below]
        while left:
            node = left.pop()
            left += node.below
            if node.label not in self.parts:
                found.add(node)
        return found

    def follow(self, path: tuple[Any, ...]) -> None:
        """Walks down a path, label by label.

        Raises:
          AssertionError: the tree has no such line.
        """
        node = self.parts["RUN"]
        for label in path:
            below = list(node.below)
            for part in [self.parts[node.label] for node in below if node.label in self.parts]:
                below += part.below
            fits = [node for node in below if node.label not in self.parts and node.takes(label)]
            assert len(fits) == 1, f"{path}: {len(fits)} lines of the tree are for {label!r}"
            (node,) = fits
            self.met.add(node)


def test_the_tree_has_every_key_and_no_other(walk):
    """Of training, evaluation, several draws of an example, and all schemes' own labels."""
    tree = Tree(TREE)
    for run in RUNS.values():
        jax.eval_shape(run)
    for path in walk.paths:
        tree.follow(path)
    assert not {node.label for node in tree.lines() - tree.met}


def test_the_readme_draws_the_same_tree():
    readme = (ROOT / "dropjax" / "README.md").read_text()
    assert f"```text\n{TREE}\n```" in readme


@pytest.mark.parametrize(
    "path",
    [
        ("noise", 3, "example", 0),
        ("noise", "step"),
        ("noise", 3, "examples", 0, "layer_0/hidden", "link 1", "mask"),
        ("data", 0, "noise"),
    ],
)
def test_a_path_that_is_not_drawn_is_noticed(path):
    with pytest.raises(AssertionError, match="0 lines"):
        Tree(TREE).follow(path)
