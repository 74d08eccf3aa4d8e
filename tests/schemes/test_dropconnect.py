"""Facts of Wan et al. 2013."""

import jax
import jax.numpy as jnp
import numpy as np

import dropjax
from dropjax.core.draw import deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.site import Kind
from dropjax.schemes import parse
from tests.cases import SITES
from tests.statistics import assert_mean

LINEAR = SITES[Kind.LINEAR]
W = jax.random.normal(jax.random.key(0), (4, 6))
X = jax.random.normal(jax.random.key(1), (4,))


def outputs(text, examples=None, keys=20_000):
    scheme = parse(text)

    def one(i):
        step = jax.random.key(i if examples is None else 0)
        return sampled(scheme, Keys.of(step, i)).linear(X, W, None, LINEAR)

    return jax.vmap(one)(jnp.arange(examples or keys))


def test_one_mask_for_the_whole_batch_by_default():
    batch = np.asarray(outputs("dropconnect", examples=5))
    assert (batch == batch[0]).all()


def test_one_mask_an_example_as_in_the_paper():
    batch = np.asarray(outputs('dropconnect(mode="example")', examples=5))
    assert all((batch[0] != row).any() for row in batch[1:])


def test_moments_are_those_of_the_paper_s_gaussian():
    """Section 3: u = (M * W) v has mean q W v and variance p q (W * W)(v * v)."""
    u = np.asarray(outputs('dropconnect(rate=0.3,scaling="test")'))
    mean = np.asarray(0.7 * (X @ W))
    assert_mean(u, mean)
    assert_mean((u - mean) ** 2, 0.3 * 0.7 * (X**2 @ W**2))
    test_time = deterministic(parse('dropconnect(rate=0.3,scaling="test")'))
    np.testing.assert_allclose(test_time.linear(X, W, None, LINEAR), mean, rtol=1e-5)


def test_masks_of_a_batch_and_of_examples_agree_in_mean_gradient_not_in_its_variance():
    """A mask for each example averages the noise of a batch's gradient; one for all does not."""

    def gradient(text, step):
        scheme = parse(text)

        def loss(w):
            keys = jax.vmap(lambda i: Keys.of(jax.random.key(step), i))(jnp.arange(16))
            y = jax.vmap(lambda k: sampled(scheme, k).linear(X, w, None, LINEAR))(keys)
            return y.mean()

        return jax.grad(loss)(W)

    many = jax.vmap(lambda step: gradient("dropconnect", step))(jnp.arange(3000))
    own = jax.vmap(lambda step: gradient('dropconnect(mode="example")', step))(jnp.arange(3000))
    exact = jnp.tile(X[:, None] / 6, (1, 6))
    assert_mean(many, exact)
    assert_mean(own, exact)
    ratio = np.asarray(many).var(axis=0) / np.asarray(own).var(axis=0)
    np.testing.assert_allclose(ratio.mean(), 16, rtol=0.1)


def test_the_op_drops_weights():
    w = np.asarray(dropjax.dropconnect(jax.random.key(0), jnp.ones((100, 100)), 0.25))
    assert set(np.unique(w)) == {np.float32(0), np.float32(4 / 3)}
