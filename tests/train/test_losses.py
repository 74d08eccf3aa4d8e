"""Losses of several passes against NumPy, and as parts of a problem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import dropjax
from dropjax import schemes, train
from dropjax.core.draw import deterministic, sampled
from dropjax.core.plan import record
from dropjax.core.site import Kind, Site
from dropjax.ops.keys import derive
from dropjax.train.objectives import binary, classification

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ONE, TWO, THREE = (RNG.normal(size=4).astype(np.float32) for _ in range(3))
LABEL = jnp.int32(2)


def cross_entropy(logits, label=2):
    return scipy.special.logsumexp(logits.astype(np.float64)) - logits[label]


def kl(one, two):
    p, q = (scipy.special.softmax(z.astype(np.float64)) for z in (one, two))
    return scipy.stats.entropy(p, q)


# Functions of logits.


def test_multi_sample_is_the_mean_of_the_losses():
    found = train.multi_sample_loss(np.stack([ONE, TWO, THREE]), LABEL)
    wanted = np.mean([cross_entropy(z) for z in (ONE, TWO, THREE)])
    assert found == pytest.approx(wanted, rel=1e-6)
    assert found > cross_entropy((ONE + TWO + THREE) / 3) + 1e-3  # not the loss of the mean
    assert train.multi_sample_loss(ONE[None], LABEL) == pytest.approx(cross_entropy(ONE), rel=1e-6)


@pytest.mark.parametrize("alpha", [0, 0.3, 5.0])
def test_r_drop_is_the_mean_entropy_and_half_the_divergence_both_ways(alpha):
    """Cross-entropy of both passes, and a sum over classes: older code had one, some a mean.

    The paper's, which adds the two entropies (section 2.1), is twice this at half its alpha.
    """
    entropy = (cross_entropy(ONE) + cross_entropy(TWO)) / 2
    wanted = entropy + alpha * (kl(ONE, TWO) + kl(TWO, ONE)) / 2
    assert train.r_drop_loss(ONE, TWO, LABEL, alpha) == pytest.approx(wanted, rel=1e-5)
    assert train.r_drop_loss(TWO, ONE, LABEL, alpha) == pytest.approx(wanted, rel=1e-5)
    same = train.r_drop_loss(ONE, ONE, LABEL, alpha)
    assert same == pytest.approx(cross_entropy(ONE), rel=1e-6)


@pytest.mark.parametrize("kappa", [0, 0.15, 2.0])
def test_fraternal_is_the_mean_entropy_and_the_mean_square_of_the_difference(kappa):
    entropy = (cross_entropy(ONE) + cross_entropy(TWO)) / 2
    wanted = entropy + kappa * np.mean((ONE - TWO) ** 2)
    assert train.fraternal_loss(ONE, TWO, LABEL, kappa) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", [train.r_drop_loss, train.fraternal_loss])
def test_gradients_reach_both_passes_and_are_those_of_differences(loss):
    to_one, to_two = jax.grad(loss, argnums=(0, 1))(ONE, TWO, LABEL, 0.7)
    step = 1e-2
    for i in range(4):
        e = (np.arange(4) == i).astype(np.float32) * step
        for found, up, down in (
            (to_one, (ONE + e, TWO), (ONE - e, TWO)),
            (to_two, (ONE, TWO + e), (ONE, TWO - e)),
        ):
            slope = (loss(*up, LABEL, 0.7) - loss(*down, LABEL, 0.7)) / (2 * step)
            assert found[i] == pytest.approx(float(slope), abs=1e-3)


def test_batches_and_sequences_have_a_loss_for_each_label():
    z = RNG.normal(size=(3, 2, 5, 4)).astype(np.float32)
    label = jnp.asarray(RNG.integers(0, 4, (2, 5)), jnp.int32)
    for loss in (
        train.multi_sample_loss,
        lambda z, y: train.r_drop_loss(z[0], z[1], y, 0.5),
        lambda z, y: train.fraternal_loss(z[0], z[1], y, 0.5),
    ):
        found = loss(z, label)
        assert found.shape == (2, 5)
        assert found[1, 3] == pytest.approx(float(loss(z[:, 1, 3], label[1, 3])), rel=1e-6)


def test_classes_that_are_masked_out_and_extreme_logits_have_finite_gradients():
    for one, two in (
        ([1.0, -np.inf, 2.0], [0.0, -np.inf, 1.0]),
        ([1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]),
    ):
        value, slopes = jax.value_and_grad(train.r_drop_loss, argnums=(0, 1))(
            jnp.float32(one), jnp.float32(two), LABEL, 1.0
        )
        assert np.isfinite(value) and all(np.isfinite(slope).all() for slope in slopes)


def test_half_precision_is_widened():
    half = [jnp.asarray(z, jnp.bfloat16) for z in (ONE, TWO)]
    wide = [z.astype(jnp.float32) for z in half]
    for loss in (train.r_drop_loss, train.fraternal_loss):
        found = loss(*half, LABEL, 0.5)
        assert found.dtype == jnp.float32 and found == loss(*wide, LABEL, 0.5)


@pytest.mark.parametrize("label", [-1, -100, 100])
def test_labels_out_of_range_are_seen(label):
    """-1, which often stands for none, is not the last class."""
    logits = jnp.asarray([ONE, TWO], jnp.float32)
    losses = [
        train.multi_sample_loss(logits, label),
        train.r_drop_loss(*logits, label, 1.0),
        train.fraternal_loss(*logits, label, 1.0),
    ]
    assert np.isnan(losses).all()


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: train.multi_sample_loss(ONE, LABEL), r"logits must be \(samples"),
        (lambda: train.multi_sample_loss(ONE[None], LABEL[None]), r"label must be integers \[\]"),
        (lambda: train.multi_sample_loss(ONE[None], 1.0), "label must be integers"),
        (lambda: train.r_drop_loss(ONE, TWO[:3], LABEL, 1), "both passes must give logits"),
        (lambda: train.fraternal_loss(ONE, TWO[None], LABEL, 1), "both passes must give logits"),
        (lambda: train.r_drop_loss(ONE, TWO, LABEL, -1), "alpha must be a finite number"),
        (lambda: train.fraternal_loss(ONE, TWO, LABEL, np.nan), "kappa must be a finite number"),
        (lambda: train.r_drop(under_draw, classification, alpha=np.inf), "alpha must be a finite"),
        (lambda: train.fraternal(under_draw, classification, kappa=-1), "kappa must be a finite"),
        (lambda: train.multi_sample(trunk, head, classification, samples=0), "samples must be a"),
        (lambda: train.multi_sample(trunk, head, classification, samples=2.0), "samples must be a"),
    ],
)
def test_errors(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# As parts of a problem.

IN, OUT = (Site(name, Kind.HIDDEN, ("feature",)) for name in ("in", "out"))
X = jnp.asarray(RNG.normal(size=(12, 6)), jnp.float32)
Y = jnp.asarray(RNG.integers(0, 4, 12), jnp.int32)
PARAMS = {
    "w": jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32),
    "v": jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32),
}
SCHEME = schemes.parse("bernoulli(rate=0.5)")


def trunk(params, x, draw):
    return jax.nn.relu(draw(x, IN) @ params["w"])


def head(params, h, draw):
    return draw(h, OUT) @ params["v"]


def under_draw(params, x, draw):
    return head(params, trunk(params, x, draw), draw)


def under_key(params, x, key):
    return dropjax.dropout(key, x @ params["w"], 0.5) @ params["v"]


def test_the_passes_are_the_model_s_own_and_a_fork_of_it():
    draw = sampled(SCHEME, KEY)
    apply, metrics = train.r_drop(under_draw, classification, alpha=0.7)
    outputs = apply(PARAMS, X[0], draw)
    one, two = under_draw(PARAMS, X[0], draw), under_draw(PARAMS, X[0], draw.fork(1))
    np.testing.assert_array_equal(outputs, [one, two])
    assert (one != two).any()
    found = metrics(outputs, Y[0])
    assert set(found) == {"loss", "accuracy", "divergence"}
    wanted = train.r_drop_loss(one, two, Y[0], 0.7)
    assert found["loss"] == pytest.approx(float(wanted), rel=1e-6)
    accuracies = [float(jnp.argmax(z) == Y[0]) for z in (one, two)]
    assert found["accuracy"] == np.mean(accuracies)


def test_of_a_key_the_passes_are_the_key_s_and_one_below_it():
    apply, metrics = train.fraternal(under_key, classification, kappa=0.3)
    outputs = apply(PARAMS, X[0], KEY)
    one = under_key(PARAMS, X[0], KEY)
    two = under_key(PARAMS, X[0], derive(KEY, "fork 1"))
    np.testing.assert_array_equal(outputs, [one, two])
    assert (one != two).any()
    found = metrics(outputs, Y[0])
    wanted = train.fraternal_loss(one, two, Y[0], 0.3)
    assert found["loss"] == pytest.approx(float(wanted), rel=1e-6)
    assert found["distance"] == pytest.approx(float(jnp.mean((one - two) ** 2)), rel=1e-6)


def test_multi_sample_runs_the_trunk_once_and_the_head_under_forks():
    draw, calls = sampled(SCHEME, KEY), []

    def counted(params, x, draw):
        calls.append(None)
        return trunk(params, x, draw)

    apply, metrics = train.multi_sample(counted, head, classification, samples=3)
    outputs = apply(PARAMS, X[0], draw)
    h = trunk(PARAMS, X[0], draw)
    wanted = [head(PARAMS, h, d) for d in (draw, draw.fork(1), draw.fork(2))]
    np.testing.assert_array_equal(outputs, wanted)
    assert len(calls) == 1 and len(np.unique(np.stack(wanted), axis=0)) == 3
    found = metrics(outputs, Y[0])["loss"]
    assert found == pytest.approx(float(train.multi_sample_loss(np.stack(wanted), Y[0])), rel=1e-6)


def test_a_deterministic_draw_has_equal_passes():
    apply, metrics = train.r_drop(under_draw, classification, alpha=5.0)
    found = metrics(apply(PARAMS, X[0], deterministic(SCHEME)), Y[0])
    plain = classification(under_draw(PARAMS, X[0], deterministic(SCHEME)), Y[0])
    assert found["divergence"] == 0 and found["loss"] == plain["loss"]


def test_one_logit_stands_for_two_classes():
    """A softmax over one class would make all predictions equal, and the divergence 0."""
    _, of_one = train.r_drop(under_draw, binary, alpha=1.0)
    _, of_two = train.r_drop(under_draw, classification, alpha=1.0)
    one, two = jnp.float32([0.3]), jnp.float32([-2.0])
    found = of_one((one, two), jnp.int32(1))
    wanted = of_two(tuple(jnp.float32([0, z[0]]) for z in (one, two)), jnp.int32(1))
    for name in ("loss", "accuracy", "divergence"):
        assert found[name] == pytest.approx(float(wanted[name]), rel=1e-5), name


def test_a_name_that_is_taken_is_refused():
    def metrics(outputs, y):
        return {"loss": jnp.sum(outputs), "distance": jnp.zeros(())}

    _, of_two = train.fraternal(under_draw, metrics, kappa=1.0)
    with pytest.raises(ValueError, match="metrics returns 'distance'"):
        of_two((jnp.ones(3), jnp.ones(3)), None)


def fit(apply, metrics, scheme, **options):
    problem = train.Problem(apply, metrics, scheme, optax.sgd(0.1), **options)
    start = {"mean": jnp.zeros(5), "steps": jnp.int32(0)} if "stateful" in options else None
    given = {"epochs": 1, "batch_size": 12, "mutable": start, "devices": jax.devices()[:1]}
    return train.fit(problem, PARAMS, X, Y, key=KEY, **given)


def test_one_sample_trains_as_ordinary_dropout_does():
    one = fit(*train.multi_sample(trunk, head, classification, samples=1), SCHEME)
    plain = fit(under_draw, classification, SCHEME)
    for name in PARAMS:
        np.testing.assert_array_equal(one.params[name], plain.params[name])


def test_a_step_goes_down_the_gradient_of_the_loss():
    """By hand, with the keys of the loop."""
    fitted = fit(*train.r_drop(under_draw, classification, alpha=0.7), SCHEME)
    step_key = derive(KEY, "noise", 0)

    def loss_of(params, i):
        draw = sampled(SCHEME, dropjax.Keys.of(step_key, i))
        z = [under_draw(params, X[i], d) for d in (draw, draw.fork(1))]
        return train.r_drop_loss(*z, Y[i], 0.7)

    def total(params):
        return jax.vmap(loss_of, in_axes=(None, 0))(params, jnp.arange(len(X))).mean()

    loss, gradient = jax.jit(jax.value_and_grad(total))(PARAMS)
    assert fitted.history[0]["loss"] == pytest.approx(float(loss), rel=1e-5)
    for name in PARAMS:
        wanted = PARAMS[name] - 0.1 * gradient[name]
        np.testing.assert_allclose(fitted.params[name], wanted, rtol=1e-4, atol=1e-6)


def test_sites_are_recorded_once_though_there_are_several_passes():
    apply, _ = train.multi_sample(trunk, head, classification, samples=3)
    assert list(record(lambda draw: apply(PARAMS, X[0], draw))) == ["in", "out"]


def stateful(params, xs, key, state):
    h = dropjax.dropout(key, xs @ params["w"], 0.5)
    mean = 0.5 * state["mean"] + 0.5 * h.mean(axis=0)
    return (h - mean[None]) @ params["v"], {"mean": mean, "steps": state["steps"] + 1}


def test_batches_and_mutable_variables():
    """A running average takes in the mean of both passes, and a counter counts one step."""
    pair = train.r_drop(stateful, classification, alpha=1.0)
    fitted = fit(*pair, None, batched=True, stateful=True)
    assert set(fitted.history[0]) == {"loss", "accuracy", "divergence"}
    assert fitted.history[0]["divergence"] > 0
    order = jax.random.permutation(derive(KEY, "data", 0), len(X))
    key = derive(KEY, "noise", 0, "batch", 0)
    passes = [
        dropjax.dropout(k, X[order] @ PARAMS["w"], 0.5).mean(axis=0) / 2
        for k in (key, derive(key, "fork 1"))
    ]
    np.testing.assert_allclose(fitted.mutable["mean"], sum(passes) / 2, rtol=1e-5, atol=1e-6)
    assert fitted.mutable["steps"] == 1


def test_the_head_of_a_stateful_trunk():
    def norm(params, x, draw, state):
        h = trunk(params, x, draw)
        return h - state["mean"], {"mean": h}

    apply, _ = train.multi_sample(norm, head, classification, samples=2)
    draw = sampled(SCHEME, KEY)
    outputs, new = apply(PARAMS, X[0], draw, {"mean": jnp.ones(5)})
    h = trunk(PARAMS, X[0], draw)
    np.testing.assert_array_equal(outputs[1], head(PARAMS, h - 1, draw.fork(1)))
    np.testing.assert_array_equal(new["mean"], h)
