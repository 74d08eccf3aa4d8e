"""The forms that a problem may have, against loops written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dropjax
from dropjax.core.batch import mean_over_batch
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.core.site import BATCH_AXES, Kind, Site
from dropjax.ops.keys import derive
from dropjax.schemes import parse
from dropjax.train import Examples, Problem, Program

SITE = Site("hidden", Kind.HIDDEN, ("feature",))
KEY = jax.random.key(3)
N, BATCH, RATE, MOMENTUM = 10, 4, 0.05, 0.9
X = jax.random.normal(jax.random.key(0), (N, 6)) + jnp.arange(6.0)[None]
Y = jax.random.normal(jax.random.key(1), (N, 2))
PARAMS = {"w": jax.random.normal(jax.random.key(2), (6, 2)), "b": jnp.zeros(2)}
START = {"mean": jnp.zeros(6)}


def loss(outputs, y):
    return jnp.sum((outputs - y) ** 2)


def metrics(outputs, y):
    return {"loss": loss(outputs, y)}


def noisy(params, x, key):
    return dropjax.dropout(key, x, 0.5) @ params["w"] + params["b"]


def noisy_batch(params, xs, key):
    return dropjax.dropout(key, xs, 0.5) @ params["w"] + params["b"][None]


def under_draw(params, x, draw):
    return draw(x, SITE) @ params["w"] + params["b"]


def centred(params, x, key, state):
    """Subtracts the mean over the batch; its running mean is the state."""
    mean = jax.lax.pmean(x, BATCH_AXES)
    running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
    return noisy(params, x - mean, key), {"mean": running}


def centred_batch(params, xs, key, state):
    mean = jnp.mean(xs, axis=0)
    running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
    return noisy_batch(params, xs - mean[None], key), {"mean": running}


def centred_under_draw(params, x, draw, state):
    mean = jax.lax.pmean(x, BATCH_AXES)
    running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
    return under_draw(params, x - mean, draw), {"mean": running}


def program(apply, *, scheme=None, examples=N, batch=BATCH, of=metrics, **options) -> Program:
    problem = Problem(apply, of, scheme, optax.sgd(RATE), **options)
    data = Examples(X[:examples], Y[:examples])
    return Program(problem, data, key=KEY, batch_size=batch, devices=jax.devices()[:1])


def train(of: Program, epochs: int = 2):
    state = of.init(PARAMS, START if of.problem.stateful else None)
    for epoch in range(epochs):
        first = epoch * of.steps_per_epoch
        state = of.run(state, first, first + of.steps_per_epoch)
    return state


def batches(epochs: int = 2):
    """(step, the rows of its batch, the rows that only fill the last one up)."""
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(derive(KEY, "data", epoch), N))
        for number in range(-(-N // BATCH)):
            rows = order[number * BATCH : (number + 1) * BATCH]
            yield epoch * -(-N // BATCH) + number, rows, order[: BATCH - len(rows)]


def by_hand(outputs_of, *, stateful=False, filled=True):
    """The trained parameters and the state.

    Args:
      outputs_of: of (params, examples, rows, step_key).
      stateful: the mean over the batch is subtracted, and its running mean is the state.
      filled: whether the rows that fill the last batch up count in that mean.
    """

    @jax.jit
    def step_of(params, state, rows, weight, step_key):
        def mean_loss(params):
            losses = jax.vmap(loss)(outputs_of(params, xs, rows, step_key), Y[rows])
            return jnp.sum(losses * weight) / jnp.sum(weight)

        xs = X[rows]
        if stateful:
            mean = xs.mean(axis=0)
            state = {"mean": MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean}
            xs = xs - mean[None]
        gradient = jax.grad(mean_loss)(params)
        return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), state

    params, state = PARAMS, START if stateful else {}
    for step, rows, filling in batches():
        weight = np.float32([1] * len(rows) + [0] * len(filling) * filled)
        seen = np.uint32([*rows, *filling][: len(weight)])
        params, state = step_of(params, state, seen, weight, derive(KEY, "noise", step))
    return params, state


def assert_close(a, b, rtol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5), a, b)


def with_keys(params, xs, rows, step_key):
    """A function of a key gets each example's own."""
    keys = jax.vmap(lambda row: Keys.of(step_key, row).example)(rows)
    return jax.vmap(noisy, in_axes=(None, 0, 0))(params, xs, keys)


def with_one_key(params, xs, rows, step_key):
    """A batched function gets one key a step and device."""
    return noisy_batch(params, xs, derive(step_key, "batch", 0))


def with_draws(scheme):
    def outputs(params, xs, rows, step_key):
        draws = jax.vmap(lambda row: sampled(scheme, Keys.of(step_key, row)))(rows)
        return jax.vmap(under_draw, in_axes=(None, 0, 0))(params, xs, draws)

    return outputs


def centred_by_weight(params, x, key, state, *, weight):
    """As `centred`, without the examples that fill the last batch up."""
    mean = mean_over_batch(x, weight)
    running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
    return noisy(params, x - mean, key), {"mean": running}


def centred_by_draw(params, x, draw, state):
    mean = mean_over_batch(x, draw.weight)
    running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
    return under_draw(params, x - mean, draw), {"mean": running}


BERNOULLI, NONE = parse("bernoulli(rate=0.3)"), parse("none")
FORMS = {
    # the model, options of its problem, and its outputs
    "a key": (noisy, {}, with_keys),
    "one key for a batch and device": (noisy_batch, {"batched": True}, with_one_key),
    "state": (centred, {"stateful": True}, with_keys),
    "state of a batch": (centred_batch, {"stateful": True, "batched": True}, with_one_key),
    "state under a scheme": (
        centred_under_draw,
        {"stateful": True, "scheme": BERNOULLI},
        with_draws(BERNOULLI),
    ),
    "no filling": (centred_by_weight, {"stateful": True, "weighted": True}, with_keys),
    "no filling under a draw": (
        centred_by_draw,
        {"stateful": True, "scheme": NONE},
        with_draws(NONE),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_equals_its_formula_over_whole_batches(form):
    """With state the gradient goes through the mean; without filling it is of the real rows."""
    apply, options, outputs_of = FORMS[form]
    stateful, filled = "stateful" in options, not form.startswith("no filling")
    params, state = by_hand(outputs_of, stateful=stateful, filled=filled)
    found = train(program(apply, **options))
    assert_close(found.params["params"], params)
    assert_close(found.mutable, state)
    assert found.params["learned"] == {}


def test_with_a_key_or_with_a_draw_the_batch_size_changes_no_noise():
    """A step of rate 0 over all examples has the losses of the same step in any other batch."""
    step_key, rows = derive(KEY, "noise", 0), np.arange(N, dtype=np.uint32)
    for apply, scheme, outputs_of in (
        (noisy, None, with_keys),
        (under_draw, BERNOULLI, with_draws(BERNOULLI)),
    ):
        whole = train(program(apply, scheme=scheme, batch=N), 1).means()["loss"]
        wanted = jax.vmap(loss)(outputs_of(PARAMS, X, rows, step_key), Y).mean()
        assert whole == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize(("examples", "filled"), [(8, False), (10, True)])
def test_a_draw_has_a_weight_where_a_batch_is_filled_up(examples, filled):
    """Elsewhere there is none, so that nothing is computed with it."""
    weights = []

    def noted(params, x, draw, state):
        weights.append(draw.weight)
        return centred_by_draw(params, x, draw, state)

    of = program(noted, scheme=NONE, stateful=True, examples=examples)
    of.check(PARAMS, START)
    assert (weights[-1] is not None) == filled


@pytest.mark.parametrize(("examples", "batch"), [(10, 4), (9, 8), (7, 7), (5, 3)])
def test_what_fills_the_last_batch_up_are_other_examples(examples, batch):
    """A batched model sees every row of its batch, and no row twice."""

    def spread(params, xs, key):
        distances = jnp.sum((xs[:, None] - xs[None]) ** 2, axis=-1)
        return jnp.full(len(xs), jnp.sum(distances < 1e-6) - len(xs), jnp.float32)

    def twins(outputs, y):
        return {"loss": outputs}

    of = program(spread, examples=examples, batch=batch, of=twins, batched=True)
    state = train(of, 1)
    assert state.means() == {"loss": 0.0} and float(state.totals["weight"]) == examples


def test_more_rows_than_examples_are_filled_with_what_there_is():
    state = train(program(noisy, examples=3, batch=8), 1)
    assert float(state.totals["weight"]) == 3 and np.isfinite(state.means()["loss"])


def test_sites_are_found_when_training_starts():
    of = program(under_draw, scheme=BERNOULLI)
    assert of.problem.sites is None
    of.init(PARAMS)
    assert of.problem.sites == {"hidden": (SITE, (6,))}
    stateful = program(centred_under_draw, scheme=BERNOULLI, stateful=True)
    stateful.init(PARAMS, START)
    assert stateful.problem.sites == of.problem.sites


REFUSED = [
    # the model, options of its problem, the state that is given, and what the message says
    *[
        (under_draw, {"scheme": parse(text)}, None, r"the model declares hidden \(HIDDEN\)")
        for text in ("zoneout", "dropconnect", 'bernoulli(at="hiden")')
    ],
    (under_draw, {"scheme": BERNOULLI, "batched": True}, None, "a draw is for one example"),
    *[
        (noisy, {"strength": strength}, None, "strength would do nothing")
        for strength in (0.5, 0.0, optax.linear_schedule(0.0, 1.0, 4))
    ],
    (noisy, {}, START, "stateful=False, but mutable="),
    (centred, {"stateful": True}, None, "stateful=True, but mutable=None"),
]


@pytest.mark.parametrize(("apply", "options", "start", "words"), REFUSED)
def test_what_does_not_go_together_is_refused(apply, options, start, words):
    with pytest.raises(ValueError, match=words):
        program(apply, **options).init(PARAMS, start)


def test_a_state_that_differs_between_examples_is_refused():
    def own(params, x, key, state):
        return noisy(params, x, key), {"mean": x}

    with pytest.raises(ValueError, match="out_axes"):
        program(own, stateful=True).init(PARAMS, START)
