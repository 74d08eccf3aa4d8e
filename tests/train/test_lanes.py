"""Runs side by side, against the same runs alone."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax import models
from dropjax.core.scheme import Chain, Scheme, rate_fields
from dropjax.core.site import Kind, Site
from dropjax.ops.keys import derive
from dropjax.runs import Network
from dropjax.schemes import parse
from dropjax.train import (
    OBJECTIVES,
    Examples,
    Lane,
    Lanes,
    Problem,
    Program,
    State,
    chunks,
    fit,
    lanes,
)
from dropjax.train.fit import Fitted
from dropjax.train.optax_spec import OPTIMIZERS, optimizer_of
from tests.cases import apart
from tests.compiled import normal

HIDDEN = Site("hidden", Kind.HIDDEN, ("feature",))
LINEAR = Site("linear", Kind.LINEAR, ("input", "output"))
N, BATCH, EPOCHS = 10, 4, 2
X, Y, IMAGES = (normal(N, *shape) for shape in ((6,), (2,), (4, 4, 1)))
# A cache's size is for this machine's own; tests of results are for one device.
ONE = {"devices": jax.devices()[:1]}


def apply(params, x, draw):
    return draw.linear(draw(x, HIDDEN), params["w"], params["b"], LINEAR)


def apply_of_key(params, x, key):
    return (x * jax.random.normal(key, x.shape)) @ params["w"] + params["b"]


def apply_of_batch(params, xs, key):
    return (xs * jax.random.normal(key, xs.shape)) @ params["w"] + params["b"][None]


def metrics(outputs, y):
    return {"loss": jnp.sum((outputs - y) ** 2), "first": outputs[0]}


def init(key):
    return {"w": jax.random.normal(key, (6, 2)), "b": jnp.zeros(2)}


def init_one(key):
    return {"w": jax.random.normal(key, (6, 1)), "b": jnp.zeros(1)}


def problem(scheme: str | Scheme | None = "bernoulli", rate=0.01, **changes) -> Problem:
    of = parse(scheme) if isinstance(scheme, str) else scheme
    given: dict[str, Any] = {"apply": apply, "metrics": metrics, "scheme": of}
    return Problem(**given | {"optimizer": optax.sgd(rate)} | changes)


def train(of: Problem, grid: list[Lane], x=X, y=Y, init=init, **options) -> list[Fitted]:
    options = {"epochs": EPOCHS, "batch_size": BATCH, "at_a_time": len(grid)} | ONE | options
    return lanes.fit(of, init, x, y, lanes=grid, **options)


def alone(of: Problem, key, x=X, y=Y, init=init) -> Fitted:
    made = init(derive(key, "init"))
    params, mutable = made if of.stateful else (made, None)
    return fit(of, params, x, y, key=key, epochs=EPOCHS, batch_size=BATCH, mutable=mutable, **ONE)


def assert_same(found: Any, wanted: Any, rtol=2e-5) -> None:
    def check(path, a, b):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=2e-6, err_msg=str(path))

    jax.tree_util.tree_map_with_path(check, found, wanted)


def assert_same_run(found: Fitted, wanted: Fitted, **options) -> None:
    for field in dataclasses.fields(Fitted):
        assert_same(getattr(found, field.name), getattr(wanted, field.name), **options)


def key(seed: int):
    return jax.random.key(seed)


def test_lanes_of_other_seeds_rates_and_learning_rates_are_the_runs_alone():
    grid = [
        Lane(key(3), parse("bernoulli(rate=0.5)"), {"learning_rate": 0.01}),
        Lane(key(4), parse("bernoulli(rate=0.2)"), {"learning_rate": 0.01}),
        Lane(key(4), parse("bernoulli(rate=0.2)"), {"learning_rate": 0.001}, strength=0.5),
    ]
    found = train(problem(), grid, optimizer=optax.adam)
    for number in (0, 2):
        given, got = grid[number], found[number]
        optimizer = optax.adam(**given.numbers)
        own = problem(given.scheme, strength=given.strength, optimizer=optimizer)
        assert_same_run(got, alone(own, given.key))
        assert len(got.history) == EPOCHS and set(got.history[0]) == {"loss", "first"}
    assert not np.allclose(found[1].params["w"], found[2].params["w"])


def network_problem(model: str, scheme: str, **changes) -> tuple[Problem, Any]:
    network = Network(models.parse(model, outputs=3), parse(scheme))
    shapes = jax.eval_shape(lambda: network.init(key(0), IMAGES[0]))
    stateful = bool(shapes[1])
    of = Problem(
        network.forward,
        OBJECTIVES["classification"],
        network.scheme,
        optax.sgd(0.1),
        stateful=stateful,
        **changes,
    )

    def init(key):
        both = network.init(key, IMAGES[0])
        return both if stateful else both[0]

    return of, init


def over_time(other: bool) -> str:
    rates = (0.1, 0.5) if other else (0.3, 0.2)
    return 'zoneout(rate={})|variational(rate={},at="input")'.format(*rates)


@pytest.mark.parametrize(
    ("model", "scheme", "other"),
    [
        ('rnn(cell="elman",width=4)', over_time(False), over_time(True)),
        ('cnn(channels=(2,),norm="batch",dense=())', "spatial", "spatial(rate=0.1)"),
    ],
)
def test_lanes_of_a_network_are_the_runs_alone(request, model, scheme, other):
    """One with two rates over time, and one with running means."""
    of, init = network_problem(model, scheme)
    if of.stateful:  # without optimisations JAX's CPU code for batch norm in a loop ends in NaN
        request.getfixturevalue("optimised")
    x, y = IMAGES, np.arange(N, dtype=np.int32) % 3
    found = train(of, [Lane(key(1)), Lane(key(2), parse(other))], x, y, init)
    own = dataclasses.replace(of, scheme=parse(other))
    assert_same_run(found[1], alone(own, key(2), x, y, init), rtol=1e-4)
    assert bool(found[1].mutable) == of.stateful


@pytest.mark.parametrize("scheme", ["concrete|tests.throwaway:LearnedRate", "sparse_variational"])
def test_what_lanes_learn_and_report_is_what_they_do_alone(scheme):
    """Under an objective in whose unit the penalty is twice as large."""
    grid, squares = [Lane(key(5)), Lane(key(6), penalty=3.0)], OBJECTIVES["regression"]
    of = problem(scheme, metrics=squares, penalty=optax.linear_schedule(0.0, 2.0, 4))
    program = Lanes(of, init_one, Examples(X, Y[:, :1]), grid, batch_size=BATCH, **ONE)
    (state,) = [chunk.state for chunk in chunks(program, program.init(), epochs=1)][-1:]
    own = problem(scheme, metrics=squares, penalty=optax.linear_schedule(0.0, 6.0, 4))
    single = Program(own, Examples(X, Y[:, :1]), key=key(6), batch_size=BATCH, **ONE)
    first = single.init(init_one(derive(key(6), "init")))
    (wanted,) = [chunk.state for chunk in chunks(single, first, epochs=1)][-1:]
    assert_same(program.alone(state, 1).params, wanted.params)
    assert jax.tree.leaves(wanted.params["learned"])
    reports = program.report(state)
    assert_same(reports[1], single.report(wanted))
    assert isinstance(jax.tree.leaves(reports)[0], float)
    assert (reports[0] != reports[1]) == (scheme != "sparse_variational"), "nothing is sparse yet"
    assert_same(program.means(state)[1], wanted.means())


@pytest.mark.parametrize("function", [apply_of_key, apply_of_batch])
def test_lanes_of_a_model_that_takes_a_key_are_the_runs_alone(function):
    of = problem(None, apply=function, batched=function is apply_of_batch)
    grid = [Lane(key(1)), Lane(key(2))]
    first, second = train(of, grid)
    assert_same_run(second, alone(of, grid[1].key))
    assert not np.allclose(first.params["w"], second.params["w"])


def test_rows_are_the_run_on_these_examples_alone():
    rows = [np.arange(7), np.array([9, 1, 3, 5, 8, 0, 2])]
    found = train(problem(), [Lane(key(2), rows=of) for of in rows])
    assert_same_run(found[1], alone(problem(), key(2), X[rows[1]], Y[rows[1]]))
    assert not np.allclose(found[0].params["w"], found[1].params["w"])


def test_a_lanes_strength_multiplies_the_problems_schedule():
    schedule = optax.linear_schedule(0.0, 1.0, 5)
    found = train(problem(strength=schedule), [Lane(key(1), strength=0.5), Lane(key(1))])
    own = problem(strength=lambda step: 0.5 * schedule(step))
    assert_same_run(found[0], alone(own, key(1)))
    assert not np.allclose(found[0].params["w"], found[1].params["w"])


def test_a_lane_that_diverges_says_when_and_leaves_the_others_as_they_are():
    quiet = [Lane(key(seed), numbers={"learning_rate": 0.01}) for seed in (1, 2, 3)]
    wild = dataclasses.replace(quiet[1], numbers={"learning_rate": 1e30})
    still = train(problem(), quiet, optimizer=optax.sgd)
    found = train(problem(), [quiet[0], wild, quiet[2]], optimizer=optax.sgd)
    with pytest.raises(FloatingPointError, match=f"at step {found[1].diverged_at}$"):
        alone(problem(rate=1e30), key(2))
    assert not math.isfinite(found[1].history[-1]["loss"])
    for number in (0, 2):
        assert found[number].diverged_at == -1
        assert found[number].history == still[number].history
        assert_same(found[number].params, still[number].params, rtol=0)


def test_groups_are_one_program_and_company_and_order_do_not_matter():
    traced, seen = [], []

    def counted(outputs, y):
        traced.append(None)
        return metrics(outputs, y)

    def note(of: Lanes, epoch: int, state: State) -> None:
        seen.append((len(of), epoch, len(traced)))

    grid = [Lane(key(seed), parse(f"bernoulli(rate=0.{seed})")) for seed in (1, 2, 3, 4, 5)]
    both = [*grid, *grid[::-1]]
    found = train(problem(metrics=counted), both, at_a_time=4, after_epoch=note)
    assert seen == [(4, 1, len(traced)), (4, 2, len(traced))] * 3, "the last one is filled up"
    assert len(found) == 10 and len({float(of.params["w"][0, 0]) for of in found[:5]}) == 5
    for a, b in zip(found[:5], found[:4:-1], strict=True):
        assert_same_run(a, b)


def test_lanes_end_when_after_epoch_says_so():
    """Each group by itself."""
    grid = [Lane(key(seed)) for seed in (1, 2)]
    ends = iter([1, 3])

    def stop(of: Lanes, epoch: int, state: State) -> bool:
        stop.at = next(ends) if epoch == 1 else stop.at
        return epoch == stop.at

    found = train(problem(), grid, epochs=4, at_a_time=1, after_epoch=stop)
    assert [len(of.history) for of in found] == [1, 3]


def test_lanes_without_a_scheme_have_the_problems_in_every_group():
    of = problem("bernoulli(rate=0.1)")
    grid = [Lane(key(1), parse("bernoulli(rate=0.9)")), Lane(key(2)), Lane(key(3))]
    grid += [Lane(key(seed), parse("bernoulli(rate=0.1)")) for seed in (2, 3)]
    found = train(of, grid, at_a_time=2)
    assert_same_run(found[1], found[3])
    assert_same_run(found[2], found[4])


def test_other_lanes_in_a_program_are_those_alone():
    program = Lanes(problem(), init, Examples(X, Y), [Lane(key(1))], batch_size=BATCH, **ONE)
    program.run(program.init(), 0, 3)  # its order of the data is not theirs
    other = program.with_lanes([Lane(key(2), parse("bernoulli(rate=0.1)"))])
    assert (len(program), len(other)) == (1, 1)
    state = other.run(other.init(), 0, 3)
    own = alone(problem("bernoulli(rate=0.1)"), key(2))
    assert other.means(state)[0] == pytest.approx(own.history[0], rel=1e-5)
    assert other.alone(state, 0).step == 3
    with pytest.raises(ValueError, match="steps 2 to 4 are not a part of one epoch"):
        other.run(state, 2, 4)


def lane(**given) -> Lane:
    return Lane(key(0), **given)


LANE, DIFFER = lane(), "train on different numbers of examples:"
SCHEMES = [parse("bernoulli(rate=0.1)"), parse("gaussian(rate=0.1)")]


PLAIN, OF_KEY = problem(), problem(None, apply=apply_of_key)
REFUSED = [
    (PLAIN, [], "^there is no lane$"),
    (OF_KEY, [lane(scheme=SCHEMES[0])], "lane 0 has a scheme, but"),
    (
        problem(SCHEMES[0]),
        [LANE, lane(scheme=SCHEMES[1])],
        r"lane 1 and lane 0 differ in more than numbers: gaussian\(rate=0.1\) and bernoulli",
    ),
    (PLAIN, [LANE, lane(scheme=parse('bernoulli(at="hidden")'))], "differ in more than num"),
    (PLAIN, [LANE, lane(scheme=PLAIN.scheme.scaled(np.ones(6, np.float32)))], "differ in more"),
    (
        PLAIN,
        [LANE, lane(numbers={"momentum": 0.5})],
        r"lane 1 and lane 0 name different numbers: \['momentum'\] and \[\]",
    ),
    (
        PLAIN,
        [lane(numbers={"learning_rate": 0.5})],
        r"numbers \['learning_rate'\] would do nothing: say of which function",
    ),
    (PLAIN, [lane(rows=np.arange(4)), lane(rows=np.arange(5))], f"1 and lane 0 {DIFFER} 5 and 4"),
    (PLAIN, [LANE, lane(rows=np.arange(5))], f"lane 1 and lane 0 {DIFFER} 5 and all"),
    (PLAIN, [lane(rows=np.arange(11))], "rows of lane 0 go from 0 to 10, .* to 9"),
    (PLAIN, [lane(rows=np.arange(-1, 3))], "rows of lane 0 go from -1 to 2"),
    (PLAIN, [lane(rows=np.ones(10, bool))], "list of integers, got bool"),
    (OF_KEY, [lane(strength=0.5)], "strength=0.5 of lane 0 would do nothing"),
    (PLAIN, [LANE, lane(penalty=2.0)], "penalty=2.0 of lane 1 would do nothing"),
    (problem("zoneout"), [LANE], "zoneout.* acts on STATE sites"),
]


@pytest.mark.parametrize(("of", "grid", "words"), REFUSED)
def test_lanes_that_no_one_program_serves_are_refused(of, grid, words):
    with pytest.raises(ValueError, match=words):
        Lanes(of, init, Examples(X, Y), grid, batch_size=BATCH, **ONE)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ([], "^there is no lane$"),
        ([lane(scheme=SCHEMES[1])], "lane 0 and those of the program differ in more"),
        ([lane(rows=np.arange(5))], f"{DIFFER} 5 and 4"),
        ([LANE], f"{DIFFER} all and 4"),
        ([lane(rows=np.arange(7, 11))], "rows of lane 0 go from 7 to 10"),
    ],
)
def test_other_lanes_that_a_program_does_not_serve_are_refused(grid, words):
    first = [lane(rows=np.arange(4))]
    of = Lanes(problem(), init, Examples(X, Y), first, batch_size=BATCH, **ONE)
    with pytest.raises(ValueError, match=words):
        of.with_lanes(grid)


def at_a_time(width: int, batch: int, examples: int = 512) -> int:
    def init(key):
        return {"w": jnp.zeros((6, width)), "v": jnp.zeros((width, 2))}

    def apply(params, x, draw):
        return draw(x, HIDDEN) @ params["w"] @ params["v"]

    x, y = jnp.zeros((examples, 6)), jnp.zeros((examples, 2))
    of = problem(apply=apply)
    return Lanes(of, init, Examples(x, y), [LANE], batch_size=batch, **ONE).at_a_time()


def test_fewer_lanes_are_trained_at_a_time_the_larger_the_model_and_the_batch():
    wide, large = (at_a_time(width, 4) for width in (1000, 10_000))
    assert at_a_time(2, 4) == 256 > wide > large > at_a_time(1_000_000, 4) == 1
    assert wide > at_a_time(1000, 64) > at_a_time(1000, 512) >= 1


@pytest.mark.parametrize("count", range(1, 14))
def test_groups_are_of_one_size_and_as_few_as_can_be(count):
    members = list(range(count))
    for at_most in range(1, 16):
        groups = list(lanes.even_groups(members, at_most))
        assert [m for group, wanted in groups for m in group[:wanted]] == members
        assert len({len(group) for group, _ in groups}) == 1
        assert len(groups) == -(-count // at_most) and len(groups[0][0]) <= at_most
        # The smallest size that takes no more groups.
        sizes = [size for size in range(1, 16) if -(-count // size) == len(groups)]
        assert len(groups[0][0]) == sizes[0]
    with pytest.raises(ValueError, match="lanes at a time must be at least 1, got 0"):
        list(lanes.even_groups(members, 0))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_a_traced_learning_rate(name):
    """And does with it what it does with a number."""
    params = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(3)}
    gradient = jax.tree.map(jnp.cos, params)

    def updates(rate):
        optimizer = optimizer_of(name, rate)
        state, found = optimizer.init(params), []
        for _ in range(2):
            update, state = optimizer.update(gradient, state, params)
            found.append(update)
        return found

    with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
        assert_same(jax.jit(updates)(jnp.float32(0.01)), jax.jit(lambda: updates(0.01))())


# Each variant of a scheme once.
EVERYTHING = list(
    {str(dataclasses.replace(case.scheme, at="")): case for case in reversed(apart())}.values()
)
# To compile them all takes a minute.
DIFFERENT = ("dropblock", "gaussian", "mixout", "patch", "shake_drop", "tests.throwaway:WholeBatch")
SOME = [next(of for of in EVERYTHING if str(of.scheme).startswith(name)) for name in DIFFERENT]


def of_sites(cases, rate: float = 0.3):
    """A model of some sites, whose weights know but one scheme each, and its data."""

    def apply(params, x, draw):
        loss = 0.0
        for case, w in zip(cases, params, strict=True):
            if case.site.kind is Kind.LINEAR:
                y = draw.linear(x[: case.shape[0]], w, None, case.site)
            else:
                value = jnp.resize(x, case.shape)
                y = draw(value * w, case.site, 0.5 * value)
            loss += jnp.mean((y - 0.1) ** 2)
        return loss

    def init(key):
        keys = jax.random.split(key, len(cases))
        return [jax.random.normal(k, case.shape) for k, case in zip(keys, cases, strict=True)]

    def at_rate(link):
        return dataclasses.replace(link, **dict.fromkeys(rate_fields(type(link)), rate))

    scheme = Chain(tuple(at_rate(case.scheme) for case in cases))
    of = problem(scheme, apply=apply, metrics=lambda outputs, y: {"loss": outputs})
    return of, jax.random.normal(key(0), (3, 24)), jnp.zeros(3), init


def test_every_scheme_is_traced_in_lanes():
    of, x, y, init = of_sites(EVERYTHING)
    other, *_ = of_sites(EVERYTHING, 0.4)
    grid = [Lane(key(1)), Lane(key(2), other.scheme)]
    program = Lanes(of, init, Examples(x, y), grid, batch_size=2, **ONE)
    state = jax.eval_shape(lambda: program._starts(program._stacked))
    state = dataclasses.replace(state, step=jax.ShapeDtypeStruct((), jnp.int32))
    after = jax.eval_shape(lambda state: program.run(state, 0, 2), state)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), after, state)
    assert all(jax.tree.leaves(same))


def test_schemes_in_a_lane_are_themselves_alone():
    of, x, y, init = of_sites(SOME)
    other, *_ = of_sites(SOME, 0.4)
    found = train(of, [Lane(key(1)), Lane(key(2), other.scheme)], x, y, init)[1]
    wanted = alone(other, key(2), x, y, init)
    for number, _ in enumerate(DIFFERENT):
        assert_same(found.params[number], wanted.params[number])
        assert_same(found.learned[number], wanted.learned[number])
