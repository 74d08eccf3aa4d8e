"""Replay equals what training used, and says what cannot be had."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax import train
from dropjax.core import noise
from dropjax.core.draw import keys_at
from dropjax.core.plan import no_weights, record
from dropjax.core.scheme import Chain
from dropjax.core.site import Kind, Site
from dropjax.ops.keys import derive
from dropjax.ops.lazy import Lazy, is_lazy
from dropjax.schemes import parse
from tests.cases import apart

KEY = jax.random.key(11)
N, BATCH, UNITS = 22, 8, 16
STEPS = 3  # an epoch, the last with 6 examples
HIDDEN = Site("hidden", Kind.HIDDEN, ("feature",))
INPUT = Site("input", Kind.INPUT, ("time", "feature"))
KERNEL = Site("kernel", Kind.WEIGHT, ("input", "output"))
TEXT = 'bernoulli(rate=0.4)|gaussian(rate=0.2,at="input")|bernoulli(rate=0.3,at="hidden")'
TEXT += "|dropconnect(rate=0.3)"
SHAPES = {"hidden": (UNITS,), "input": (4, 6), "kernel": (3, 5)}
ONE = jax.devices()[:1]
RAMP = optax.linear_schedule(0.3, 1.0, 5)


def apply(params, row, draw):
    """What was drawn for a row, in a place of its own: any gradient shows all of it."""
    parts = [draw(jnp.ones(SHAPES[s.name]), s).reshape(-1) for s in (HIDDEN, INPUT, KERNEL)]
    return params[row.astype(jnp.int32)] * jnp.concatenate(parts)


def metrics(outputs, y):
    return {"loss": jnp.sum(outputs)}


PARAMS = jnp.zeros((N, UNITS + 24 + 15))
ROWS = jnp.arange(N, dtype=jnp.float32)


def program_of(problem: train.Problem, devices=ONE) -> train.Program:
    data = train.Examples(ROWS, ROWS)
    return train.Program(problem, data, key=KEY, batch_size=BATCH, devices=devices)


def program(text=TEXT, *, strength=1.0, devices=ONE) -> train.Program:
    problem = train.Problem(apply, metrics, parse(text), optax.sgd(1.0), strength=strength)
    return program_of(problem, devices)


def seen(of: train.Program, steps: int) -> list[dict[int, np.ndarray]]:
    """By step, for each row that had a gradient, what the values 1 became there."""
    state, found, before = of.init(PARAMS), [], np.asarray(PARAMS)
    for step in range(steps):
        state = of.run(state, step, step + 1)
        after = np.array(state.params["params"])
        moved = before - after
        rows = np.flatnonzero(np.any(moved != 0, axis=1))
        # The mean over a batch of n, each step of SGD from zeros again: exact in powers of two.
        found.append({int(row): moved[row] * len(rows) for row in rows})
        before = after
    return found


def expected(noise, strength=1.0) -> np.ndarray:
    """What 1 becomes under noise, from the schemes' definitions."""

    def kept(keep, rate):
        rate = np.float32(rate) * np.float32(strength)
        return keep / (1 - rate)

    first, second = noise["hidden"]
    (normal,) = noise["input"]
    spread = np.float32(0.2) * np.float32(strength)
    parts = [
        kept(first, 0.4) * kept(second, 0.3),
        1 + np.sqrt(spread / (1 - spread)) * normal,
        kept(noise["kernel"][0], 0.3),
    ]
    return np.concatenate([part.reshape(-1) for part in parts])


def assert_replayed(replay: train.Replay, found, strength=lambda step: 1.0):
    for step, by_row in enumerate(found):
        batch = replay.batch(step)
        assert sorted(batch.tolist()) == sorted(by_row)
        noise = replay.noise(step, batch)
        for i, row in enumerate(batch):
            one = replay.noise(step, int(row))
            jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), noise, one)
            wanted = expected(one, strength(step))
            np.testing.assert_array_equal(by_row[row] != 0, wanted != 0)
            np.testing.assert_allclose(by_row[row], wanted, rtol=2e-4, atol=2e-5)


def test_a_gradient_that_shows_all_noise_shows_what_is_replayed():
    """Over two epochs, their smaller last batches among them, in chains and at shared weights.

    Rates of a schedule are those of the step.
    """
    of = program(strength=RAMP)
    found = seen(of, 2 * STEPS)
    assert [len(by_row) for by_row in found] == [8, 8, 6, 8, 8, 6]
    assert_replayed(of.replay(), found, lambda step: float(RAMP(step)))
    for row, values in found[0].items():
        outputs = apply(jnp.ones_like(PARAMS), ROWS[row], of.replay().draw(0, row))
        np.testing.assert_allclose(values, outputs, rtol=1e-5, atol=1e-6)
    of_one = of.replay().noise(1, of.replay().batch(1))["kernel"][0]
    assert (of_one == of_one[:1]).all() and of_one.shape == (8, 3, 5)


@pytest.mark.usefixtures("optimised")
def test_the_strength_of_a_step_is_that_of_training_to_the_bit():
    """The rate itself as an output: compiled into the step, and computed again."""

    def ramp(step):
        return 0.1 + 0.83 * (0.5 + 0.49 * jnp.cos(step.astype(jnp.float32) / 11.7))

    def rate(params, x, draw):
        return draw.scheme.rate * jnp.ones(1) + 0 * params

    def metrics(outputs, y):
        return {"loss": outputs[0]}

    problem = train.Problem(
        rate, metrics, parse("bernoulli(rate=0.7)"), optax.sgd(0.0), {}, strength=ramp
    )
    data = train.Examples(jnp.ones(40), jnp.ones(40))
    of = train.Program(problem, data, key=KEY, batch_size=1, devices=ONE)
    object.__setattr__(of, "check", lambda params, mutable=None: ["loss"])  # it has no sites
    state, trained = of.init(jnp.zeros(1)), []
    for step in range(40):
        state = of.run(state, step, step + 1)
        trained.append(float(state.totals["loss"]))
    sums = np.cumsum(
        [np.asarray(of.replay().scheme_at(step).rate) for step in range(40)], dtype=np.float32
    )
    np.testing.assert_array_equal(np.float32(trained), sums)


def test_the_batches_of_an_epoch_have_each_row_once_and_step_of_finds_it():
    replay = train.Replay(KEY, N, BATCH)
    assert replay.steps_per_epoch == STEPS
    for epoch in (0, 4):
        steps = range(epoch * STEPS, (epoch + 1) * STEPS)
        batches = [replay.batch(step) for step in steps]
        assert sorted(np.concatenate(batches).tolist()) == list(range(N))
        order = np.asarray(jax.random.permutation(derive(KEY, "data", epoch), N))
        np.testing.assert_array_equal(np.concatenate(batches), order)
        for step, batch in zip(steps, batches, strict=True):
            assert {replay.step_of(int(row), epoch) for row in batch} == {step}


def test_a_function_of_a_key_was_given_the_key_that_is_replayed():
    def keyed(params, row, key):
        word = jax.random.randint(key, (), 0, 2**20).astype(jnp.float32)
        return params[row.astype(jnp.int32)] * word

    of = program_of(train.Problem(keyed, metrics, None, optax.sgd(1.0)))
    state = of.run(of.init(jnp.zeros(N)), 0, 2)
    found, replay = -BATCH * np.asarray(state.params["params"]), of.replay()
    for step in (0, 1):
        for row in replay.batch(step):
            word = jax.random.randint(replay.keys(step, row).example, (), 0, 2**20)
            assert found[row] == int(word)
    both = (train.keys_of(KEY, 1, int(row)), replay.keys(1, int(row)))
    a, b = (jax.random.key_data(keys.example) for keys in both)
    assert (a == b).all()
    with pytest.raises(ValueError, match=r"no scheme.*keys\(step, row\)"):
        replay.draw(1, int(row))


def test_learned_values_have_to_be_given_and_are_used():
    text = "tests.throwaway:LearnedRate(rate=0.5)"
    of = program(text)
    learned = jax.tree.map(np.array, of.init(PARAMS).params["learned"])
    (found,) = seen(of, 1)
    with pytest.raises(ValueError, match=r"had learned before step 0.*learned="):
        of.replay().noise(0, of.replay().batch(0))
    replay = of.replay(learned)
    for row, values in found.items():
        (factor,) = replay.noise(0, row)["hidden"]
        np.testing.assert_allclose(values[:UNITS], factor, rtol=1e-5)
        assert len(set(factor.tolist())) == 2


def test_a_batched_model_has_no_noise_of_an_example():
    def batched(params, xs, key):
        return xs[:, None] * params

    of = program_of(train.Problem(batched, metrics, None, optax.sgd(0.1), batched=True))
    with pytest.raises(ValueError, match="batched model's noise belongs to no single example"):
        of.replay()


# What is refused.


@pytest.fixture(scope="module")
def replay() -> train.Replay:
    of = program()
    of.check(PARAMS)
    return train.Replay(KEY, N, BATCH, of.problem.scheme, of.problem.sites, steps=4 * STEPS)


@pytest.mark.parametrize("step", [-1, 12, 10**12])
def test_a_step_that_there_is_not_is_refused(replay, step):
    for call in (lambda: replay.batch(step), lambda: replay.draw(step, 0)):
        with pytest.raises(ValueError, match=rf"no step {step}: they go from 0 to 11"):
            call()
    with pytest.raises(ValueError, match="no step -1"):
        train.Replay(KEY, N, BATCH).batch(-1)


@pytest.mark.parametrize("value", [1.0, "1", None, [1]])
def test_what_is_no_integer_is_refused(replay, value):
    for call in (lambda: replay.batch(value), lambda: replay.draw(0, value)):
        with pytest.raises(TypeError, match=r"(step|row) must be an integer"):
            call()


def test_a_row_of_another_batch_is_refused_with_those_nearest_and_its_step(replay):
    batch = sorted(replay.batch(1).tolist())
    for row in set(range(N)) - set(batch):
        near = [*[b for b in batch if b < row][-1:], *[b for b in batch if b > row][:1]]
        step = replay.step_of(row, 0)
        words = f"row {row} was not in the batch of step 1.*are {' and '.join(map(str, near))}; "
        with pytest.raises(ValueError, match=words + f".*in step {step}$"):
            replay.draw(1, row)
        with pytest.raises(ValueError, match=words):
            replay.noise(1, [batch[0], row])
    for row in (-1, N):
        with pytest.raises(ValueError, match=rf"no row {row} .* 0 to {N - 1}"):
            replay.draw(1, row)


def test_sites_are_chosen_by_name_and_what_finds_none_is_refused(replay):
    row = int(replay.batch(0)[0])
    assert set(replay.noise(0, row, at="^hid|kern")) == {"hidden", "kernel"}
    assert set(replay.noise(0, row)) == {"hidden", "input", "kernel"}
    with pytest.raises(ValueError, match=r"at='nowhere'.*hidden, input, kernel"):
        replay.noise(0, row, at="nowhere")
    with pytest.raises(ValueError, match="not a regular expression"):
        replay.noise(0, row, at="(")
    only = train.Replay(KEY, N, BATCH, parse("dropconnect"), replay.sites)
    with pytest.raises(ValueError, match="does not act on input"):
        only.noise(0, row, at="input")
    with pytest.raises(ValueError, match=r"after Program\.init"):
        train.Replay(KEY, N, BATCH, parse("dropconnect")).noise(0, row)


@pytest.mark.parametrize("name", ["examples", "batch_size"])
def test_a_replay_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        train.Replay(**{"key": KEY, "examples": 3, "batch_size": 2} | {name: 0})


# Every scheme's noise.


# These perturb what a dense layer returns.
OF_OUTPUTS = (
    "concrete",
    'dropconnect(rate=0.3,mode="gaussian"',
    "sparse_variational",
    "variational_gaussian",
)


def test_the_noise_of_every_scheme_can_be_had_as_arrays(monkeypatch):
    """It is what `sample` draws; of a dense layer only where the layer asks `sample` for it."""
    cases = {case.site.name: case for case in apart()}
    sites = {name: (case.site, case.shape) for name, case in cases.items()}
    scheme = Chain(tuple(case.scheme for case in cases.values()))
    learned = scheme.init_learned(KEY, sites, no_weights(sites))
    replay = train.Replay(KEY, N, BATCH, scheme, sites, learned=learned)
    row = int(replay.batch(2)[1])
    without = [
        name
        for name, case in cases.items()
        if case.site.kind is Kind.LINEAR and str(case.scheme).startswith(OF_OUTPUTS)
    ]
    for name in without:
        with pytest.raises(ValueError, match=r"linear\(\.\.\.\)"):
            replay.noise(2, row, at=f"^{name}$")

    at = f"^({'|'.join(name for name in cases if name not in without)})$"
    # Compiled by themselves, the few functions that draw serve all schemes.
    monkeypatch.setattr(noise, "_drawn", noise._drawn.__wrapped__)
    found = replay.noise(2, row, at=at)
    assert len(found) + len(without) == len(cases)
    for number, (name, link) in enumerate(zip(cases, replay.scheme_at(2).links, strict=True)):
        if name not in without:
            drawn = link.sample(keys_at(replay.keys(2, row), sites[name][0], number), *sites[name])
            drawn = jax.tree.map(
                lambda n: n.drawn() if isinstance(n, Lazy) else n, drawn, is_leaf=is_lazy
            )
            jax.tree.map(np.testing.assert_array_equal, found[name], (drawn,))


def test_a_layer_s_noise_is_what_its_layer_used():
    """`linear` by the scheme's own `sample`, and one that perturbs pre-activations."""
    site = Site("linear", Kind.LINEAR, ("input", "output"))
    sites = record(lambda draw: draw.linear(jnp.ones(3), jnp.ones((3, 5)), None, site))
    replay = train.Replay(KEY, N, BATCH, parse("dropconnect(rate=0.5)"), sites)
    row = int(replay.batch(0)[0])
    (keep,) = replay.noise(0, row)["linear"]
    w = jnp.arange(15.0).reshape(3, 5)
    y = replay.draw(0, row).linear(jnp.ones(3), w, None, site)
    np.testing.assert_allclose(y, np.sum(2 * keep * np.asarray(w), axis=0))
    other = train.Replay(KEY, N, BATCH, parse("tests.throwaway:PreActivation"), sites)
    with pytest.raises(ValueError, match=r"no noise of its own at 'linear'.*linear\(\.\.\.\)"):
        other.noise(0, row)
    assert other.draw(0, row).linear(jnp.ones(3), w, None, site).shape == (5,)
