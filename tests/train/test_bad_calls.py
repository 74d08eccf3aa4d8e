"""Calls that cannot be meant: each is refused before anything is trained, in words that help."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax import schemes, train
from dropjax.train import Lane, lanes
from dropjax.train.losses import fraternal, r_drop

X, Y = np.ones((4, 3), np.float32), np.ones((4, 1), np.float32)
LABELS = np.array([0, 1, 2, 3])
KEY = jax.random.key(0)
ONE = {"devices": jax.devices()[:1]}


def model(params, x, key):
    return x @ params


def problem(metrics=train.OBJECTIVES["regression"], **changes):
    given = {"apply": model, "metrics": metrics, "scheme": None, "optimizer": optax.sgd(0.1)}
    return train.Problem(**given | changes)


def of_pair(pair):
    apply, metrics = pair
    return problem(metrics, apply=apply)


def fit(of=None, params=None, x=X, y=Y, **changes):
    params = jnp.ones((3, 1)) if params is None else params
    given = {"key": KEY, "epochs": 1, "batch_size": 2} | ONE
    return train.fit(of or problem(), params, x, y, **given | changes)


def fit_lanes(of=None, init=lambda key: jnp.ones((3, 1)), x=X, y=Y, **changes):
    given = {"lanes": [Lane(KEY)], "epochs": 1, "batch_size": 2} | ONE
    return lanes.fit(of or problem(), init, x, y, **given | changes)


def lane(**changes):
    return fit_lanes(lanes=[Lane(KEY), dataclasses.replace(Lane(KEY), **changes)])


def per_example(outputs, y):
    return {"loss": (outputs - y) ** 2}


def noisy(params, x, draw):
    return x @ params


CALLS = {
    "key": (lambda: fit(key=0), "key must be a PRNG key such as .*, got int"),
    "keys": (lambda: fit(key=jax.random.split(KEY)), r"key must be one key, got \[2\]"),
    "lists": (lambda: fit(x=X.tolist()), r"x\[0\]\[0\] must be an array.*got float; convert lists"),
    "list of labels": (lambda: fit(y=[0, 1, 0, 1]), r"y\[0\] must be an array.*got int; convert"),
    "one value": (lambda: fit(y=np.float32(1)), "y must be an array .*, got a single value"),
    "text": (lambda: fit(x={"a": X, "b": np.array(["a"] * 4)}), r"x\['b'\] must hold numbers"),
    "objects": (lambda: fit(y=np.array([0, None, 1, 0])), "y must hold numbers, .* of object"),
    "no x": (lambda: fit(x={}), "x must hold at least one array, got {}"),
    "no examples": (lambda: fit(x=X[:0], y=Y[:0]), "there are no training examples"),
    "other length": (lambda: fit(y=Y[:3]), r"x and y must have equal lengths, got \[3, 4\]"),
    "batch of 0": (lambda: fit(batch_size=0), "batch_size must be at least 1, got 0"),
    "batch of 1.5": (lambda: fit(batch_size=1.5), "batch_size must be a whole number, got 1.5"),
    "no epochs": (lambda: fit(epochs=0), "epochs must be at least 1, got 0"),
    "fewer": (lambda: fit(epochs=-1), "epochs must be at least 1, got -1"),
    "half an epoch": (lambda: fit(epochs=0.5), "epochs must be a whole number, got 0.5"),
    "integers": (lambda: fit(params={"w": np.ones(3, int)}), r"params\['w'\] must be .* got int64"),
    "a function": (lambda: fit(params=lambda key: 1.0), "params must be .* floats.* got function"),
    "no devices": (lambda: fit(devices=[]), "devices is an empty list; leave it out"),
    "a number": (lambda: fit(devices=[0]), r"devices must be a list such as .* got \[0\]"),
    "a device": (lambda: fit(devices=jax.devices()[0]), "devices must be a list such as"),
    "labels": (
        lambda: fit(problem(train.OBJECTIVES["classification"]), jnp.ones((3, 3)), y=LABELS),
        r"labels in \[0, 2\].*it is 3 in row 3",
    ),
    "labels of r_drop": (
        lambda: fit(
            of_pair(r_drop(model, train.OBJECTIVES["classification"], alpha=1.0)),
            jnp.ones((3, 3)),
            y=LABELS,
        ),
        r"labels in \[0, 2\].*it is 3 in row 3",
    ),
    "metric": (lambda: fit(problem(per_example)), r"'loss' must be a scalar.* shape \(1,\)"),
    "metric of a batch": (
        lambda: fit(problem(per_example, batched=True)),
        r"'loss' must be a scalar.* shape \(1,\)",
    ),
    "metric of two passes": (
        lambda: fit(
            of_pair(fraternal(model, lambda outputs, y: {"error": outputs.mean()}, kappa=1.0))
        ),
        r"a scalar named 'loss', got \['error'\]",
    ),
    "metrics by name": (lambda: problem("regression"), r"such as train\.OBJECTIVES\['class"),
    "no model": (lambda: problem(apply=None), "apply must be a function, got None"),
    "optax.adam": (lambda: problem(optimizer=optax.adam), r"such as optax\.adam\(1e-3\), got <fun"),
    "strength": (
        lambda: problem(apply=noisy, scheme=schemes.parse("bernoulli"), strength=1.5),
        r"strength must be in \[0, 1\], got 1.5",
    ),
    "penalty": (
        lambda: problem(apply=noisy, scheme=schemes.parse("concrete"), penalty=-1.0),
        r"penalty must be in \[0, inf\], got -1.0",
    ),
    "weight of a draw": (
        lambda: problem(apply=noisy, scheme=schemes.parse("bernoulli"), weighted=True),
        r"weighted=True .*: a draw has it: draw\.weight",
    ),
    "weight of a batch": (
        lambda: problem(batched=True, weighted=True),
        "weighted=True is for a model of one example",
    ),
    "params for init": (lambda: fit_lanes(init=jnp.ones((3, 1))), "init must be a function of a k"),
    "made optimizer": (
        lambda: fit_lanes(optimizer=optax.sgd(0.1)),
        "optimizer must be a function that makes .* such as optax.adam",
    ),
    "keys for lanes": (lambda: fit_lanes(lanes=[KEY]), r"lane 0 must be a train\.Lane, got"),
    "at_a_time": (lambda: fit_lanes(at_a_time=1.5), "lanes at a time must be a whole number"),
    "lanes: epochs": (lambda: fit_lanes(epochs=0), "epochs must be at least 1, got 0"),
    "lanes: lists": (lambda: fit_lanes(x=X.tolist()), r"x\[0\]\[0\] must be an array"),
    "lanes: metric": (lambda: fit_lanes(problem(per_example)), r"'loss' must be a scalar"),
    "key of a lane": (lambda: lane(key=1), "the key of lane 1 must be a PRNG key .*, got int"),
    "scheme of a lane": (lambda: lane(scheme="bernoulli"), "the scheme of lane 1 must be a sch"),
    "numbers of a lane": (lambda: lane(numbers=0.1), "the numbers of lane 1 must be a dictionary"),
    "a number of a lane": (
        lambda: lane(numbers={"learning_rate": "0.1"}),
        "learning_rate of lane 1 must be a number, got '0.1'",
    ),
    "strength of a lane": (lambda: lane(strength=-1.0), "strength of lane 1 must be 0 or more"),
}


@pytest.mark.parametrize("call", CALLS)
def test_it_is_refused_by_name(call):
    function, words = CALLS[call]
    with pytest.raises((ValueError, TypeError), match=words):
        function()


def test_labels_of_rows_that_no_lane_trains_on_may_be_anything():
    """As of examples without a label; those that one trains on are looked at, in any lane."""
    of, examples = problem(train.OBJECTIVES["classification"]), train.Examples(X, LABELS)

    def rows(*numbers):
        return Lane(KEY, rows=np.array(numbers))

    def program(*grid):
        return train.Lanes(of, lambda key: jnp.ones((3, 3)), examples, grid, batch_size=2, **ONE)

    good = program(rows(0, 1), rows(1, 2))
    for refused in (lambda: program(rows(0, 1), rows(2, 3)), lambda: good.with_lanes([rows(3, 0)])):
        with pytest.raises(ValueError, match=r"it is 3 in row 3(?!, one of)"):
            refused()
