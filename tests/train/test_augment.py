"""Changes of examples, against SciPy and NumPy; training on mixed ones, against a loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from dropjax.ops.keys import derive
from dropjax.train import OBJECTIVES, Problem, augment, fit
from dropjax.train.keys import (
    augment_key_of,
    mix_key_of,
    noise_key_of,
    order_of,
    partner_of,
    step_key_of,
)

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (9, 6, 2)).astype(np.uint8)
KEYS = jax.random.split(jax.random.key(0), 400)


def drawn(change, keys=KEYS, *images) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(change, in_axes=(0, *[None] * len(images))))(keys, *images))


def test_a_shift_moves_the_image_and_all_moves_are_as_likely():
    made = drawn(augment.shift(1), KEYS, IMAGE)
    padded = np.pad(IMAGE, [(1, 1), (1, 1), (0, 0)])
    moves = {(i, j): padded[i : i + 9, j : j + 6] for i in range(3) for j in range(3)}
    counts = [sum(np.array_equal(x, move) for x in made) for move in moves.values()]
    assert made.dtype == np.uint8 and sum(counts) == len(KEYS)
    assert all(abs(count - 400 / 9) < 4 * np.sqrt(400 / 9) for count in counts)


def test_a_flip_turns_half_of_the_images():
    made = drawn(augment.flip(), KEYS, IMAGE)
    turned = sum(np.array_equal(x, IMAGE[:, ::-1]) for x in made)
    assert turned + sum(np.array_equal(x, IMAGE) for x in made) == 400
    assert abs(turned - 200) < 4 * 10


@pytest.mark.parametrize("name", ["rotate", "scale"])
def test_rotation_and_scale_are_those_of_scipy(name):
    change = augment.rotate(30.0) if name == "rotate" else augment.scale(1.5)
    u = [float(jax.random.uniform(derive(key, label), (), jnp.float32, -1, 1))
         for key in KEYS[:12] for label in ["angle" if name == "rotate" else "factor"]]  # fmt: skip
    centre = np.array([4, 2.5])
    for value, made in zip(u, drawn(change, KEYS[:12], IMAGE), strict=True):
        angle = np.radians(30 * value)
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        if name == "scale":
            matrix = np.eye(2) / 1.5**value
        for channel in range(2):
            # "grid-constant" is 0 outside, and between it and the border it is interpolated.
            wanted = ndimage.affine_transform(
                IMAGE[..., channel].astype(float), matrix, centre - matrix @ centre, order=1,
                mode="grid-constant",
            )  # fmt: skip
            np.testing.assert_allclose(made[..., channel], wanted, atol=0.05)
    assert min(u) < -0.3 and max(u) > 0.3


def test_a_chain_applies_each_change_with_a_key_of_its_own():
    both, key = augment.parse("shift(pixels=2)|flip"), KEYS[3]
    assert both is not None and str(both) == "shift(pixels=2)|flip"
    first = augment.shift(2)(derive(key, "change 0"), jnp.asarray(IMAGE))
    wanted = augment.flip()(derive(key, "change 1"), first)
    np.testing.assert_array_equal(both(key, jnp.asarray(IMAGE)), wanted)


def test_mixup_is_the_weighted_mean_by_a_share_from_beta():
    other = RNG.integers(0, 256, IMAGE.shape).astype(np.uint8)
    mix = jax.jit(jax.vmap(augment.mixup(0.5), in_axes=(0, None, None)))
    mixed, share = map(np.asarray, mix(KEYS, IMAGE, other))
    at = share[:, None, None, None]
    np.testing.assert_allclose(mixed, at * IMAGE + (1 - at) * other, rtol=1e-4, atol=1e-2)
    # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
    assert abs(share.mean() - 0.5) < 4 * np.sqrt(1 / 8 / 400)
    assert abs(share.var() - 1 / 8) < 0.02


def test_cutmix_puts_a_rectangle_in_and_its_share_is_its_area():
    image, other = np.zeros((12, 8, 1), np.float32), np.ones((12, 8, 1), np.float32)
    mix = jax.jit(jax.vmap(augment.cutmix(1.0), in_axes=(0, None, None)))
    mixed, share = map(np.asarray, mix(KEYS, image, other))
    np.testing.assert_allclose(1 - share, mixed.mean(axis=(1, 2, 3)), atol=1e-6)
    for x in mixed[..., 0]:
        rows, columns = x.any(axis=1), x.any(axis=0)
        np.testing.assert_array_equal(x, rows[:, None] & columns[None])
        for along in (rows, columns):
            assert np.abs(np.diff(np.concatenate([[0], along, [0]]))).sum() in (0, 2)
    # A rectangle of the area 1 - Beta(1, 1), which is uniform, loses what lies outside: by a sum
    # over all centres and sides the mean is .37 here.
    sides = np.sqrt((np.arange(2000) + 0.5) / 2000)
    area = np.ones(2000)
    for size in (12, 8):
        half, centre = np.floor(size * sides)[:, None] / 2, np.arange(size)
        low = np.maximum(centre + np.floor(-half), 0)
        high = np.minimum(centre + np.floor(half), size)
        area *= (np.maximum(high - low, 0)).mean(axis=1) / size
    assert abs((1 - share).mean() - area.mean()) < 4 * (1 - share).std() / 20


def test_training_on_mixed_examples_is_the_loop():
    """The partner is any example, changed as it would be in the batch; its target counts too."""
    x, y = RNG.normal(size=(6, 4)).astype(np.float32), np.arange(6) % 3
    key, w = jax.random.key(5), RNG.normal(size=(4, 3)).astype(np.float32)

    def noisy(key: jax.Array, x: Any) -> Any:
        return x + jax.random.normal(key, x.shape)

    mix = augment.mixup(0.7)
    problem = Problem(
        lambda params, x, key: x @ params,
        *(OBJECTIVES["classification"], None, optax.sgd(0.5)),
        augment=noisy,
        mix=mix,
    )
    fitted = fit(problem, w, x, y, key=key, epochs=1, batch_size=3)
    order, losses, partners = np.asarray(order_of(key, 0, 6)), [], set()
    for step, rows in enumerate(order.reshape(2, 3)):
        step_key = step_key_of(noise_key_of(key), step)
        slope = np.zeros_like(w)
        for row in rows:
            own = mix_key_of(step_key, row)
            other = int(partner_of(own, 6))
            partners.add(other)
            pair = [noisy(augment_key_of(step_key, r), x[r]) for r in (row, other)]
            mixed, share = map(np.asarray, mix(own, *pair))
            p = np.exp(mixed @ w) / np.exp(mixed @ w).sum()
            target = share * np.eye(3)[y[row]] + (1 - share) * np.eye(3)[y[other]]
            losses.append(-(target * np.log(p)).sum())
            slope += np.outer(mixed, p - target) / 3
        w = w - 0.5 * slope
    np.testing.assert_allclose(fitted.params, w, rtol=1e-4, atol=1e-5)
    assert fitted.history[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert len(partners) > 2
