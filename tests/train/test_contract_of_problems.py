"""The forms that a problem may have, against loops written out by hand."""

import itertools

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
        order = np.asarray(jax.random.permutation(derive(KEY, "data", epoch), N)).tolist()
        for number in range(-(-N // BATCH)):
            rows = order[number * BATCH : (number + 1) * BATCH]
            filling = order[: BATCH - len(rows)]
            yield epoch * -(-N // BATCH) + number, rows, filling


def by_hand(outputs_of, state=None):
    """`outputs_of(params, rows, step_key, state)`: of every row in a batch, and the new state."""
    params = PARAMS
    for step, rows, filling in batches():
        step_key = derive(KEY, "noise", step)

        def mean(params, rows=rows, filling=filling, step_key=step_key, state=state):
            outputs, new = outputs_of(params, [*rows, *filling], step_key, state)
            total = 0.0
            for row, output in zip(rows, outputs, strict=False):  # what fills up has no weight
                total = total + loss(output, Y[row])
            return total / len(rows), new

        gradient, state = jax.grad(mean, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    return params, state


def assert_close(a, b, rtol=2e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-5), a, b)


def key_of(step_key, row):
    return Keys.of(step_key, row).example


def test_a_function_of_a_key_gets_each_example_s_own():
    def outputs(params, rows, step_key, state):
        return [noisy(params, X[row], key_of(step_key, row)) for row in rows], None

    assert_close(train(program(noisy)).params["params"], by_hand(outputs)[0])
    assert train(program(noisy)).params["learned"] == {}


def test_with_a_key_or_with_a_draw_the_batch_size_changes_no_noise():
    """A step of rate 0 over all examples has the losses of the same step in any other batch."""
    for apply, scheme in ((noisy, None), (under_draw, parse("bernoulli"))):
        whole = train(program(apply, scheme=scheme, batch=N), 1).means()["loss"]
        keys = [Keys.of(derive(KEY, "noise", 0), row) for row in range(N)]
        noise = keys if scheme else [k.example for k in keys]
        draws = [sampled(scheme, k) for k in keys] if scheme else noise
        wanted = np.mean([loss(apply(PARAMS, X[i], draws[i]), Y[i]) for i in range(N)])
        assert whole == pytest.approx(float(wanted), rel=1e-5)


def test_a_batched_function_gets_one_key_a_step_and_device():
    def outputs(params, rows, step_key, state):
        return noisy_batch(params, X[np.array(rows)], derive(step_key, "batch", 0)), None

    assert_close(train(program(noisy_batch, batched=True)).params["params"], by_hand(outputs)[0])


def test_a_model_with_state_averages_over_the_batch():
    """Its formula over whole batches; the gradient goes through the mean."""

    def outputs(params, rows, step_key, state):
        mean = jnp.mean(X[np.array(rows)], axis=0)
        running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
        each = [noisy(params, X[row] - mean, key_of(step_key, row)) for row in rows]
        return each, {"mean": running}

    params, state = by_hand(outputs, START)
    found = train(program(centred, stateful=True))
    assert_close(found.params["params"], params)
    assert_close(found.mutable, state)


def test_a_batched_model_may_have_state_too():
    def outputs(params, rows, step_key, state):
        key = derive(step_key, "batch", 0)
        return centred_batch(params, X[np.array(rows)], key, state)

    params, state = by_hand(outputs, START)
    found = train(program(centred_batch, stateful=True, batched=True))
    assert_close(found.params["params"], params)
    assert_close(found.mutable, state)


def test_a_model_with_state_under_a_scheme():
    scheme = parse("bernoulli(rate=0.3)")

    def outputs(params, rows, step_key, state):
        mean = jnp.mean(X[np.array(rows)], axis=0)
        running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
        draws = [sampled(scheme, Keys.of(step_key, row)) for row in rows]
        each = [
            under_draw(params, X[row] - mean, draw) for row, draw in zip(rows, draws, strict=True)
        ]
        return each, {"mean": running}

    params, state = by_hand(outputs, START)
    found = train(program(centred_under_draw, scheme=scheme, stateful=True))
    assert_close(found.params["params"], params)
    assert_close(found.mutable, state)


def centred_by_weight(params, x, key, state, *, weight):
    """As `centred`, without the examples that fill the last batch up."""
    mean = mean_over_batch(x, weight)
    running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
    return noisy(params, x - mean, key), {"mean": running}


def centred_by_draw(params, x, draw, state):
    mean = mean_over_batch(x, draw.weight)
    running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
    return under_draw(params, x - mean, draw), {"mean": running}


@pytest.mark.parametrize("scheme", [None, parse("none")], ids=str)
def test_what_fills_the_last_batch_up_is_left_out_of_means(scheme):
    """The formula over the real rows alone, in training and in the running mean."""

    def outputs(params, rows, step_key, state):
        real = rows[: next(real_of)]
        mean = jnp.mean(X[np.array(real)], axis=0)
        running = MOMENTUM * state["mean"] + (1 - MOMENTUM) * mean
        if scheme is None:
            each = [noisy(params, X[row] - mean, key_of(step_key, row)) for row in real]
        else:
            each = [(X[row] - mean) @ params["w"] + params["b"] for row in real]
        return each, {"mean": running}

    real_of = itertools.cycle([4, 4, 2])
    params, state = by_hand(outputs, START)
    if scheme is None:
        of = program(centred_by_weight, stateful=True, weighted=True)
    else:
        of = program(centred_by_draw, scheme=scheme, stateful=True)
    found = train(of)
    assert_close(found.params["params"], params)
    assert_close(found.mutable, state)


@pytest.mark.parametrize(("examples", "filled"), [(8, False), (10, True)])
def test_a_draw_has_a_weight_where_a_batch_is_filled_up(examples, filled):
    """Elsewhere there is none, so that nothing is computed with it."""
    weights = []

    def noted(params, x, draw, state):
        weights.append(draw.weight)
        return centred_by_draw(params, x, draw, state)

    of = program(noted, scheme=parse("none"), stateful=True, examples=examples)
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
    scheme = parse("bernoulli(rate=0.3)")
    of = program(under_draw, scheme=scheme)
    assert of.problem.sites is None
    of.init(PARAMS)
    assert of.problem.sites == {"hidden": (SITE, (6,))}
    stateful = program(centred_under_draw, scheme=scheme, stateful=True)
    stateful.init(PARAMS, START)
    assert stateful.problem.sites == of.problem.sites


@pytest.mark.parametrize("text", ["zoneout", "dropconnect", 'bernoulli(at="hiden")'])
def test_a_scheme_that_meets_no_site_is_refused_when_training_starts(text):
    of = program(under_draw, scheme=parse(text))
    with pytest.raises(ValueError, match=r"the model declares hidden \(HIDDEN\)"):
        of.init(PARAMS)


def test_a_draw_for_a_batch_is_refused():
    with pytest.raises(ValueError, match="a draw is for one example"):
        program(under_draw, scheme=parse("bernoulli"), batched=True)


@pytest.mark.parametrize("strength", [0.5, 0.0, optax.linear_schedule(0.0, 1.0, 4)])
def test_strength_without_a_scheme_is_refused(strength):
    with pytest.raises(ValueError, match="strength would do nothing"):
        program(noisy, strength=strength)


def test_metrics_without_a_loss_are_refused():
    of = program(noisy, of=lambda outputs, y: {"error": loss(outputs, y)})
    with pytest.raises(ValueError, match=r"scalar named 'loss', got \['error'\]"):
        of.init(PARAMS)


def test_state_is_given_to_a_model_that_has_it_and_to_no_other():
    with pytest.raises(ValueError, match="stateful=False, but mutable="):
        program(noisy).init(PARAMS, START)
    with pytest.raises(ValueError, match="stateful=True, but mutable=None"):
        program(centred, stateful=True).init(PARAMS)


def test_a_state_that_differs_between_examples_is_refused():
    def own(params, x, key, state):
        return noisy(params, x, key), {"mean": x}

    with pytest.raises(ValueError, match="out_axes"):
        program(own, stateful=True).init(PARAMS, START)
