"""What a run's folder says of its randomness is what the run used."""

import dataclasses

import jax
import numpy as np
import pytest

from dropjax import data, runs, sampled
from dropjax.train import keys_of

RAMP = "linear_schedule(init_value=0.5,end_value=1.0,transition_steps=30)"


@pytest.fixture(scope="module")
def run(small_run) -> runs.Run:
    return runs.load(small_run(strength=RAMP))


@pytest.fixture(scope="module")
def digits() -> data.Dataset:
    return data.load("digits", None, say=pytest.fail).with_validation(144)


def test_a_run_s_loss_is_that_of_its_batches_under_their_draws(small_run, digits):
    """Of an epoch in which nothing is learned, at rates that grow."""
    still = runs.load(small_run(learning_rate=1e-30, strength=RAMP, epochs=1, mc_samples=0))
    x, y, again, losses = digits.x_train, digits.y_train, still.replay(), []

    def loss(scheme, step, row, x, y):
        draw = sampled(scheme, keys_of(again.key, step, row))
        return -jax.nn.log_softmax(still.network.outputs(still.params, x, draw, {}))[y]

    of_batch = jax.jit(jax.vmap(loss, in_axes=(None, None, 0, 0, 0)))
    for step in range(6):
        rows = still.batch(step)
        losses.append(of_batch(again.scheme_at(step), step, rows, x[rows], y[rows]))
    assert len(np.concatenate(losses)) == len(x)
    assert np.concatenate(losses).mean() == pytest.approx(still.history[0]["train_loss"], rel=1e-5)
    clean = -np.log(still.predict(x))[np.arange(len(y)), y]
    assert clean.mean() != pytest.approx(still.history[0]["train_loss"], rel=1e-3)
    row = int(still.batch(3)[1])
    one = loss(again.scheme_at(3), 3, row, x[row], y[row])
    outputs = still.network.outputs(still.params, x[row], still.draw(3, row), {})
    assert -jax.nn.log_softmax(outputs)[y[row]] == pytest.approx(float(one), rel=1e-5)


def test_predictions_averaged_over_replayed_draws_are_those_of_the_run(run, digits):
    """Of classification, whose rows are those of what is predicted."""
    x = digits.x_test[:4]
    wanted = run.predict(x, samples=3)

    def prediction(sample, i):
        draw = run.draw_in_evaluation(sample, i)
        return jax.nn.softmax(run.network.outputs(run.params, x[i], draw, {}))

    each = [[prediction(sample, i) for i in range(4)] for sample in range(3)]
    np.testing.assert_allclose(np.mean(each, axis=0), wanted, rtol=1e-5)


def test_noise_in_evaluation_is_that_of_its_draws(run):
    """At the strength of the last step, and not training's."""
    site, shape = run.sites["layer_0/hidden"]
    (keep,) = run.noise_in_evaluation(2, [5, 0])["layer_0/hidden"]
    assert keep.shape == (2, *shape)
    for row, mask in zip((5, 0), keep, strict=True):
        value = run.draw_in_evaluation(2, row)(np.ones(shape, np.float32), site)
        np.testing.assert_array_equal(np.asarray(value) != 0, mask)
    (all_of,) = run.noise_in_evaluation(0, np.arange(400))["layer_0/hidden"]
    rate = 0.5 * (0.5 + 0.5 * 11 / 30)
    deviation = np.sqrt(rate * (1 - rate) / all_of.size)
    assert abs(1 - all_of.mean() - rate) < 5 * deviation
    with pytest.raises(ValueError, match="names no site"):
        run.noise_in_evaluation(0, 0, at="input")


def test_augmentation_has_no_noise_in_evaluation(run, digits):
    """The run as if it had had this network, untrained."""
    text = 'bernoulli(rate=0.3,at="hidden")|cutout(size=2)'
    model = "cnn(channels=(4,),dense=(8,))"
    network = runs.Network.rebuild(model, text, run.config["network"])
    shapes = jax.eval_shape(network.init, jax.random.key(0), digits.x_train[0])
    params, mutable = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    learned = network.scheme.init_learned(jax.random.key(0), {}, {})
    values = run.values | {"params": params, "mutable": mutable, "learned": learned}
    other = dataclasses.replace(run, network=network, values=values)
    assert set(other.noise(0, int(other.batch(0)[0]))) == {"input", "dense_0/hidden"}
    assert set(other.noise_in_evaluation(0, 0)) == {"dense_0/hidden"}


def test_strength_is_that_of_the_step(run):
    for step in (0, 11):
        rows = run.batch(step)
        (keep,) = run.noise(step, rows)["layer_0/hidden"]
        rate = 0.5 * (0.5 + 0.5 * step / 30)
        deviation = np.sqrt(rate * (1 - rate) / keep.size)
        assert abs(1 - keep.mean() - rate) < 5 * deviation
        assert float(run.replay().scheme_at(step).rate) == pytest.approx(rate)
