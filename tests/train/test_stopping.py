"""Early stopping, against the same rule as a plain loop."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax.train import Lane, Problem, State, Stopping, ema, fit, lanes
from dropjax.train.keys import init_key_of
from dropjax.train.stopping import diverged_at, stopped, weights_of

NAN = math.nan
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype(np.float32)
Y = RNG.normal(size=8).astype(np.float32)


def rule(values: list[float], patience: int, min_gain: float, sign: int) -> tuple[int, int]:
    """The best epoch and the one after which training stops, from 1; 0 for none."""
    best, at, waited = NAN, 0, 0
    for epoch, value in enumerate(values, start=1):
        if (math.isnan(best) and not math.isnan(value)) or sign * (value - best) > min_gain:
            best, at, waited = value, epoch, 0
        else:
            waited += 1
        if waited == patience:
            return at, epoch
    return at, 0


def state_of(step: int, lanes: int) -> State:
    weights = jnp.full((lanes, 2), float(step))
    none = jnp.full((lanes,), -1)
    own = {"params": {"w": weights}, "learned": {}}
    return State(jnp.int32(step), own, (), {"mean": weights[:, 0]}, {}, none)


@pytest.mark.parametrize(("patience", "min_gain"), [(1, 0.0), (2, 0.0), (3, 0.5)])
@pytest.mark.parametrize("higher", [False, True])
def test_it_is_the_rule(patience, min_gain, higher):
    rows = np.round(RNG.normal(size=(40, 9)), 1)
    rows[RNG.random(rows.shape) < 0.1] = NAN
    rows[0] = NAN
    stopping = Stopping(patience, min_gain, higher)
    best = stopping.begin(state_of(0, len(rows)), len(rows))
    for epoch in range(9):
        state = state_of(epoch + 1, len(rows))
        best = stopping.look(best, state, rows[:, epoch])
    weights, ended = weights_of(best, state), stopped(best)
    for i, row in enumerate(rows):
        at, end = rule([float(np.float32(v)) for v in row], patience, min_gain, 1 if higher else -1)
        assert (int(best.step[i]), max(int(best.stopped_at[i]), 0)) == (at, end), row
        assert ended[i] == (end > 0)
        # Where no epoch had a value, the newest weights are taken.
        assert float(weights["params"]["w"][i, 1]) == (at or 9)
        assert float(weights["mutable"]["mean"][i]) == (at or 9)


def test_what_breaks_after_a_lane_has_stopped_does_not_count():
    stopping, state = Stopping(1), state_of(0, 3)
    best = stopping.begin(state, 3)
    for step, values in ((1, [1.0, 1.0, 1.0]), (2, [2.0, 2.0, 0.0])):
        best = stopping.look(best, state_of(step, 3), values)
    state = dataclasses.replace(state_of(3, 3), diverged_at=jnp.array([2, 1, 2]))
    assert diverged_at(best, state).tolist() == [-1, 1, 2]


def apply(params, x, key):
    return x @ params["w"] + 0.1 * jax.random.normal(key)


def init(key):
    return {"w": jax.random.normal(key, (3,))}


def metrics(outputs, y):
    return {"loss": jnp.square(outputs - y)}


def test_lanes_stop_where_the_runs_stop_alone():
    problem = Problem(apply, metrics, None, optax.sgd(0.05), average=ema(0.5))
    wanted = RNG.normal(size=(3,)).astype(np.float32) / 4

    def far(weights):
        return jnp.sum(jnp.square(weights["params"]["w"] - wanted))

    stopping, made = Stopping(2, 1e-4), []
    keys = [jax.random.key(seed) for seed in range(5)]
    fits = lanes.fit(
        *(problem, init, X, Y),
        lanes=[Lane(key) for key in keys],
        epochs=12,
        batch_size=4,
        at_a_time=3,
        stopping=stopping,
        monitor=lambda program, state: jax.vmap(far)(state.evaluated()),
    )
    for key, lane in zip(keys, fits, strict=True):
        alone = fit(
            *(problem, init(init_key_of(key)), X, Y),
            key=key,
            epochs=12,
            batch_size=4,
            stopping=stopping,
            monitor=lambda state: far(state.evaluated()),
        )
        assert (lane.best_step, len(lane.history)) == (alone.best_step, len(alone.history))
        np.testing.assert_allclose(lane.params["w"], alone.params["w"], rtol=1e-5)
        made.append((alone.best_step, len(alone.history)))
    assert len({*made}) > 1 and min(epochs for _, epochs in made) < 12


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Stopping(0), "patience must be at least 1, got 0"),
        (lambda: Stopping(3, -1.0), "min_gain must be a number from 0 on"),
        (
            lambda: fit(
                *(Problem(apply, metrics, None, optax.sgd(0.1)), {"w": X[0]}, X, Y),
                key=jax.random.key(0),
                epochs=1,
                batch_size=4,
                stopping=Stopping(3),
            ),
            "stopping would do nothing without monitor",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
