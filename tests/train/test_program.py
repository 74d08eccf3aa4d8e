"""The compiled step, against a loop written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax.core import plan
from dropjax.core.draw import sampled
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain, Scheme
from dropjax.core.site import Kind, Site
from dropjax.ops.keys import derive
from dropjax.schemes import parse
from dropjax.train import OBJECTIVES, Examples, Problem, Program, chunks
from dropjax.train.checkpoint import flatten
from dropjax.train.decay import weights_alone
from tests.throwaway import KeptRate, LearnedRate, PreActivation, WholeBatch

SITE = Site("hidden", Kind.HIDDEN, ("feature",))
LINEAR = Site("linear", Kind.LINEAR, ("input", "output"))
KEY = jax.random.key(3)
N, BATCH = 10, 4
X = jax.random.normal(jax.random.key(0), (N, 6))
Y = jax.random.normal(jax.random.key(1), (N, 2))
PARAMS = {"w": jax.random.normal(jax.random.key(2), (6, 2)), "b": jnp.zeros(2)}


def apply(params, x, draw):
    return draw.linear(draw(x, SITE), params["w"], params["b"], LINEAR)


def metrics(outputs, y):
    return {"loss": jnp.sum((outputs - y) ** 2), "first": outputs[0]}


def program(scheme, *, examples=N, batch=BATCH, optimizer=None, metrics=metrics, **options):
    sites = plan.record(lambda draw: apply(PARAMS, X[0], draw))
    problem = Problem(apply, metrics, scheme, optimizer or optax.sgd(0.01), sites, **options)
    data = Examples(X[:examples], Y[:examples])
    return Program(problem, data, key=KEY, batch_size=batch, devices=jax.devices()[:1])


def train(of: Program, epochs: int = 1, size: int | None = None):
    state = of.init(PARAMS)
    for start in range(0, epochs * of.steps_per_epoch, size or of.steps_per_epoch):
        stop = min(start + (size or of.steps_per_epoch), epochs * of.steps_per_epoch)
        state = of.run(state, start, stop)
    return state


def by_hand(scheme: Scheme, epochs: int, strength=lambda step: 1.0):
    """The same training as a Python loop over examples, with its own sums."""
    params, step, losses = PARAMS, 0, []
    for epoch in range(epochs):
        order = np.asarray(jax.random.permutation(derive(KEY, "data", epoch), N))
        losses = []
        for rows in (order[i : i + BATCH] for i in range(0, N, BATCH)):
            now = scheme.scaled(strength(step))

            def loss(params, rows=rows, step=step, now=now):
                total = 0.0
                for row in rows:
                    keys = Keys.of(derive(KEY, "noise", step), row)
                    outputs = apply(params, X[row], sampled(now, keys))
                    total = total + metrics(outputs, Y[row])["loss"]
                return total / len(rows)

            value, gradient = jax.value_and_grad(loss)(params)
            losses.append(float(value) * len(rows))
            params = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)
            step += 1
    return params, sum(losses) / N


def assert_close(a, b, rtol=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b)


@pytest.mark.parametrize("text", ["none", "bernoulli(rate=0.4)", "dropconnect(rate=0.3)"])
def test_equals_a_loop_by_hand(text):
    """So the last, smaller batch weighs what it holds, and each mask is its example's own."""
    state = train(program(parse(text)), epochs=2)
    params, mean_loss = by_hand(parse(text), epochs=2)
    assert_close(state.params["params"], params)
    assert state.means()["loss"] == pytest.approx(mean_loss, rel=1e-5)
    assert int(state.step) == 6


def test_strength_is_read_at_every_step():
    schedule = optax.linear_schedule(0.0, 1.0, 4)
    state = train(program(parse("bernoulli"), strength=schedule), epochs=2)
    params, _ = by_hand(parse("bernoulli"), 2, strength=lambda step: min(step / 4, 1.0))
    assert_close(state.params["params"], params)


@pytest.mark.parametrize(
    "scheme", [parse("bernoulli"), WholeBatch(), PreActivation(), LearnedRate()], ids=str
)
def test_where_chunks_end_changes_no_bit(scheme):
    whole, single = (train(program(scheme), epochs=2, size=size) for size in (None, 1))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(single), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_every_chunk_length_is_one_program():
    traced = []

    def counted(outputs, y):
        traced.append(None)
        return metrics(outputs, y)

    of = program(parse("bernoulli"), metrics=counted)
    state = of.run(of.init(PARAMS), 0, 1)
    before = len(traced)
    state = of.run(state, 1, 3)
    of.run(state, 3, 4)
    assert len(traced) == before > 0


def test_data_order_and_initial_values_do_not_depend_on_the_scheme():
    a, b = program(parse("none")), program(parse("bernoulli|dropconnect(rate=0.1)"))
    np.testing.assert_array_equal(a._order(3), b._order(3))
    assert sorted(np.asarray(a._order(3)).tolist()) == list(range(N))
    assert a._order(3).tolist() != a._order(4).tolist()
    assert_close(a.init(PARAMS).params["params"], b.init(PARAMS).params["params"], rtol=0)


def test_a_mask_depends_on_seed_step_and_example_alone():
    """Not on the batch size: a step over all rows makes the masks of a step over some."""
    scheme = parse("bernoulli")
    one = program(scheme, batch=N, optimizer=optax.sgd(0.0))
    first_outputs = train(one).means()["first"]
    masks = [
        apply(PARAMS, X[i], sampled(scheme, Keys.of(derive(KEY, "noise", 0), i)))[0]
        for i in range(N)
    ]
    assert first_outputs == pytest.approx(float(np.mean(masks)), rel=1e-5)


def logit_after(steps, penalty, examples=N):
    """Where the penalty alone has moved what was learned: there is no noise."""
    of = program(LearnedRate(rate=0.0, weight=7.0), examples=examples, penalty=penalty)
    state = of.init(PARAMS)
    before = float(state.params["learned"]["hidden"]["logit"])
    for step in range(steps):
        state = of.run(state, step, step + 1)
    return before, float(state.params["learned"]["hidden"]["logit"])


@pytest.mark.parametrize(("penalty", "examples"), [(0.0, N), (0.5, N - 5), (1.0, N)])
def test_the_penalty_is_multiplied_and_divided_by_the_examples(penalty, examples):
    before, after = logit_after(1, penalty, examples)
    s = jax.nn.sigmoid(before)
    expected = 0.01 * penalty * 7.0 * float(s * (1 - s)) / examples
    assert after - before == pytest.approx(expected, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(("targets", "unit"), [(1, 2.0), (2, 1.0)])
def test_the_penalty_is_in_the_unit_of_the_loss(targets, unit):
    """The squared error is so many times the negative log-likelihood: 1 is the ELBO all the same.

    With no noise the penalty alone moves what is learned.
    """

    def apply(params, x, draw):
        return draw(x, SITE) @ params["w"]

    scheme, regression = LearnedRate(rate=0.0, weight=7.0), OBJECTIVES["regression"]
    of = Problem(apply, regression, scheme, optax.sgd(0.01))
    data = Examples(X, Y[:, :targets])
    of = Program(of, data, key=KEY, batch_size=BATCH, devices=jax.devices()[:1])
    state = of.init({"w": jnp.ones((6, targets))})
    before = float(state.params["learned"]["hidden"]["logit"])
    after = float(of.run(state, 0, 1).params["learned"]["hidden"]["logit"])
    s = jax.nn.sigmoid(before)
    expected = unit * 0.01 * 7.0 * float(s * (1 - s)) / N
    assert after - before == pytest.approx(expected, rel=1e-3)


def test_an_optimizer_that_decays_what_is_learned_is_refused():
    decaying = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"decays what the scheme learns.*weights_alone"):
        program(LearnedRate(rate=0.0, weight=0.0), optimizer=decaying).init(PARAMS)


def test_a_scheduled_penalty_is_read_at_every_step():
    start, still = logit_after(2, lambda step: jnp.where(step < 2, 0.0, 3.0))
    assert still == start
    _, moved = logit_after(3, lambda step: jnp.where(step < 2, 0.0, 3.0))
    _, once = logit_after(1, 3.0)
    assert moved - start == pytest.approx(once - start, rel=1e-5)


@pytest.mark.parametrize("scheme", [None, parse("none"), parse("bernoulli")], ids=str)
def test_a_penalty_without_one_is_refused(scheme):
    with pytest.raises(ValueError, match="penalty would do nothing"):
        Problem(apply, metrics, scheme, optax.sgd(0.1), penalty=2.0)


def test_what_is_kept_and_not_trained_stays_under_any_optimizer():
    kept = KeptRate(weight=7.0)
    of = program(
        Chain((kept, LearnedRate(weight=7.0))), optimizer=optax.adamw(0.1, mask=weights_alone)
    )
    state = of.init(PARAMS)
    before = jax.tree.map(float, state.params["learned"])
    after = jax.tree.map(float, of.run(state, 0, 3).params["learned"])
    assert after[0] == before[0] and after[1] != before[1]


def test_a_program_reports_what_was_learned_by_one_program(monkeypatch):
    of, traced, report_at = program(LearnedRate()), [], LearnedRate.report_at

    def counted(*arguments):
        traced.append(1)
        return report_at(*arguments)

    monkeypatch.setattr(LearnedRate, "report_at", counted)
    state = train(of)
    logit = float(state.params["learned"]["hidden"]["logit"])
    report = of.report(state)
    assert list(report) == ["hidden"] and isinstance(report["hidden"]["spread"], float)
    assert report["hidden"]["spread"] == pytest.approx(float(jax.nn.sigmoid(logit)), rel=1e-6)
    assert of.report(state) == report and len(traced) == 1
    without = program(parse("bernoulli"))
    assert without.report(without.init(PARAMS)) == {}


def test_equal_learned_links_of_a_chain_start_from_values_of_their_own_and_report_side_by_side():
    of = program(Chain((parse("bernoulli"), LearnedRate(), LearnedRate())))
    state = of.init(PARAMS)
    nothing, first, second = state.params["learned"]
    assert nothing == {} and list(first) == ["hidden"]
    assert first["hidden"]["logit"] != second["hidden"]["logit"]
    assert list(of.report(state)["hidden"]) == ["spread", "spread (2)"]


def test_the_step_whose_loss_is_not_finite_is_noted():
    of = program(parse("none"), optimizer=optax.sgd(1e30))
    state = train(of, epochs=2)
    assert 1 <= int(state.diverged_at) <= 3
    assert int(train(program(parse("none"))).diverged_at) == -1


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (2, 2), (2, 5), (3, 2)])
def test_steps_that_are_not_of_one_epoch_are_refused(start, stop):
    of = program(parse("none"))
    with pytest.raises(ValueError, match="not a part of one epoch"):
        of.run(of.init(PARAMS), start, stop)


def test_the_loop_ends_chunks_at_epochs_and_goes_on_from_a_state():
    of = program(parse("bernoulli"))
    seen = [(c.step, c.epoch, c.ends_epoch) for c in chunks(of, of.init(PARAMS), epochs=3)]
    assert [s for s in seen if s[2]] == [(3, 0, True), (6, 1, True), (9, 2, True)]
    assert seen[0] == (1, 0, False), "a first chunk of one step"
    assert [step for step, _, _ in seen] == sorted({step for step, _, _ in seen})
    state = train(program(parse("bernoulli")))
    resumed = list(chunks(of, of.place(state), epochs=3))
    assert resumed[0].step == 4 and resumed[-1].step == 9
    whole = train(program(parse("bernoulli")), epochs=3)
    assert_close(resumed[-1].state.params, whole.params, rtol=0)


def test_a_state_has_what_is_trained_and_a_checkpoint_names_its_arrays_as_version_0_5_2_did():
    state = program(LearnedRate()).init(PARAMS)
    assert_close(state.trained.params, PARAMS, rtol=0)
    assert state.trained.learned.keys() == {"hidden"}
    assert state.params == {"params": state.trained.params, "learned": state.trained.learned}
    assert flatten(state).keys() == {
        "step",
        "params/params/b",
        "params/params/w",
        "params/learned/hidden/logit",
        "totals/first",
        "totals/loss",
        "totals/weight",
        "diverged_at",
    }


def test_a_state_that_was_used_up_says_so():
    of = program(parse("none"))
    state = of.init(PARAMS)
    of.run(state, 0, 1)
    assert state.step.is_deleted()
