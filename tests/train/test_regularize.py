"""Training with penalties, limits, smoothing and averages, against the same steps in NumPy."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dropjax.train import OBJECTIVES, Lane, MaxNorm, Problem, WeightPenalty, ema, fit, lanes, last
from dropjax.train.keys import order_of
from dropjax.train.optax_spec import parse_average, parse_learning_rate, parse_optimizer

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 4)).astype(np.float32), RNG.integers(0, 3, 6)
PARAMS = {
    "kernel": 2 * RNG.normal(size=(4, 3)).astype(np.float32),
    "bias": RNG.normal(size=3).astype(np.float32),
}
BATCH, EPOCHS, RATE = 3, 2, 0.5
KEY = jax.random.key(3)
CLASSIFICATION = OBJECTIVES["classification"]
TREE = {
    "conv": {"kernel": RNG.normal(size=(2, 2, 3, 5)), "bias": RNG.normal(size=5)},
    "lstm": {"recurrent_kernel": RNG.normal(size=(4, 8))},
    "embed": {"table": RNG.normal(size=(7, 4))},
    "norm": {"scale": RNG.normal(size=9)},
    "position": RNG.normal(size=(3, 4)),
}
TREE = jax.tree.map(lambda leaf: leaf.astype(np.float32), TREE)


def linear(params: Any, x: jax.Array, key: jax.Array) -> jax.Array:
    return x @ params["kernel"] + params["bias"]


def problem(smoothing: float = 0.0, clip: float | None = None, **parts: Any) -> Problem:
    metrics = dataclasses.replace(CLASSIFICATION, smoothing=smoothing)
    optimizer = parse_optimizer("sgd", RATE, clip)
    return Problem(linear, metrics, None, optimizer, **parts)


def by_hand(*, l1=0.0, l2=0.0, most=np.inf, smoothing=0.0, clip=np.inf, share=lambda step: 1.0):
    """The averaged weights after training, in float64."""
    w, b = (PARAMS[name].astype(float) for name in ("kernel", "bias"))
    average, step = (w, b), 0
    for epoch in range(EPOCHS):
        order = np.asarray(order_of(KEY, epoch, len(X)))
        for rows in order.reshape(-1, BATCH):
            logits = X[rows] @ w + b
            target = np.eye(3)[Y[rows]] * (1 - smoothing) + smoothing / 3
            p = np.exp(logits - logits.max(1, keepdims=True))
            slope = (p / p.sum(1, keepdims=True) - target) / BATCH
            gw, gb = X[rows].T @ slope + l1 * np.sign(w) + 2 * l2 * w, slope.sum(0)
            factor = min(1.0, clip / np.sqrt((gw**2).sum() + (gb**2).sum()))
            w, b = w - RATE * factor * gw, b - RATE * factor * gb
            w = w * np.minimum(1.0, most / np.sqrt((w**2).sum(0)))
            new, moved = (w, b), share(step)
            average = tuple(a + moved * (n - a) for a, n in zip(average, new, strict=True))
            step += 1
    return {"kernel": average[0], "bias": average[1]}


def ema_share(step: int) -> float:
    return 1 - min(0.7, (1 + step) / (10 + step))


CASES = {
    "l1": ({"regularizer": WeightPenalty(l1=0.1)}, {"l1": 0.1}),
    "l2": ({"regularizer": WeightPenalty(l2=0.1)}, {"l2": 0.1}),
    "max-norm": ({"project": MaxNorm(1.5)}, {"most": 1.5}),
    "smoothing": ({"smoothing": 0.3}, {"smoothing": 0.3}),
    "clip": ({"clip": 0.5}, {"clip": 0.5}),
    "ema": ({"average": ema(0.7)}, {"share": ema_share}),
    "last": ({"average": last(2)}, {"share": lambda step: 1 / max(step - 1, 1)}),
    "all": (
        {
            "regularizer": WeightPenalty(0.05, 0.02),
            "project": MaxNorm(1.5),
            "smoothing": 0.1,
            "clip": 1.0,
            "average": ema(0.7),
        },
        {"l1": 0.05, "l2": 0.02, "most": 1.5, "smoothing": 0.1, "clip": 1.0, "share": ema_share},
    ),
}


@pytest.mark.parametrize(("parts", "numbers"), CASES.values(), ids=CASES)
def test_training_is_that_in_numpy(parts, numbers):
    fitted = fit(problem(**parts), PARAMS, X, Y, key=KEY, epochs=EPOCHS, batch_size=BATCH)
    wanted = by_hand(**numbers)
    for name, leaf in fitted.params.items():
        np.testing.assert_allclose(leaf, wanted[name], rtol=2e-5, atol=2e-6, err_msg=name)
        assert not np.allclose(wanted[name], by_hand()[name], rtol=1e-3)  # the part does something


def test_lanes_with_parts_of_their_own_are_the_runs_alone():
    numbers = [
        {"l1": 0.1, "l2": 0.0, "most": 1.5, "smoothing": 0.1},
        {"l1": 0.0, "l2": 0.2, "most": 0.9, "smoothing": 0.4},
    ]
    runs = [
        Lane(
            KEY,
            parts={
                "regularizer": WeightPenalty(n["l1"], n["l2"]),
                "project": MaxNorm(n["most"]),
                "metrics": dataclasses.replace(CLASSIFICATION, smoothing=n["smoothing"]),
            },
        )
        for n in numbers
    ]
    fits = lanes.fit(
        *(problem(), lambda key: PARAMS, X, Y), lanes=runs, epochs=EPOCHS, batch_size=BATCH
    )
    for fitted, n in zip(fits, numbers, strict=True):
        wanted = by_hand(**n)
        for name, leaf in fitted.params.items():
            np.testing.assert_allclose(leaf, wanted[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_penalties_and_limits_are_of_kernels_alone():
    kernels = [TREE["conv"]["kernel"], TREE["lstm"]["recurrent_kernel"]]
    wanted = sum(0.3 * np.abs(w).sum() + 0.2 * (w**2).sum() for w in kernels)
    np.testing.assert_allclose(WeightPenalty(0.3, 0.2)(TREE), wanted, rtol=1e-5)
    limited = MaxNorm(1.7)(TREE)
    for path, leaf in jax.tree_util.tree_leaves_with_path(TREE):
        new = limited
        for key in path:
            new = new[key.key]
        if "kernel" not in path[-1].key:
            np.testing.assert_array_equal(new, leaf)
            continue
        norms = np.sqrt((leaf**2).sum(axis=tuple(range(leaf.ndim - 1))))
        np.testing.assert_allclose(new, leaf * np.minimum(1, 1.7 / norms), rtol=1e-5)
    np.testing.assert_array_equal(MaxNorm(1.0)({"kernel": jnp.zeros((2, 2))})["kernel"], 0)


def test_the_smoothed_loss_of_one_logit_is_that_of_a_softer_target():
    smoothed = dataclasses.replace(OBJECTIVES["binary"], smoothing=0.2)
    logit, p = np.float32(0.7), 1 / (1 + np.exp(-0.7))
    wanted = -(0.9 * np.log(p) + 0.1 * np.log(1 - p))
    metrics = smoothed(jnp.array([logit]), jnp.array(1))
    np.testing.assert_allclose(metrics["loss"], wanted, rtol=1e-5)
    assert metrics["accuracy"] == 1


def test_schedules_of_the_whole_run_rise_and_fall():
    rate: Any = parse_learning_rate("cosine(peak=0.4,warmup=0.1,end=0.1)", 100)
    at = np.array([rate(step) for step in (0, 5, 10, 55, 100)])
    np.testing.assert_allclose(at, [0, 0.2, 0.4, 0.25, 0.1], rtol=1e-6)
    rate = parse_learning_rate("linear(peak=0.4)", 100)
    np.testing.assert_allclose([rate(0), rate(50), rate(100)], [0.4, 0.2, 0], atol=1e-7)
    average: Any = parse_average("last(share=0.25)", 100)
    np.testing.assert_allclose([average(step) for step in (0, 75, 76, 99)], [1, 1, 0.5, 1 / 25])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: WeightPenalty(l1=-1.0), "l1 must be a finite number, at least 0; got -1.0"),
        (lambda: WeightPenalty(l2=np.inf), "l2 must be a finite number"),
        (lambda: MaxNorm(0.0), "max_norm must be a finite number, above 0"),
        (lambda: ema(1.0), "decay must be a number between 0 and 1"),
        (lambda: last(-1), "first must be a whole number from 0 on"),
        (lambda: dataclasses.replace(CLASSIFICATION, smoothing=1.0), r"must be in \[0, 1\)"),
        (lambda: dataclasses.replace(OBJECTIVES["regression"], smoothing=0.1), "no labels in"),
        (lambda: parse_optimizer("sgd", 0.1, 0.0), "clip must be a finite number above 0"),
        (lambda: parse_average("mean", 10), "average='mean' must be none, ema"),
        (lambda: parse_average("last(share=2)", 10), "share must be above 0 and at most 1"),
        (lambda: parse_learning_rate("cosine(peak=1,warmup=1)", 10), "warmup must be a share"),
        (lambda: parse_learning_rate("cosine(top=1)", 10), "learning_rate='cosine"),
        (lambda: parse_learning_rate("linear_schedule(init_value=-1,end_value=0,"
                                     "transition_steps=5)", 10), "learning_rate must stay in"),
        (lambda: lanes.Lanes(
            problem(), lambda key: PARAMS, lanes.Examples(X, Y), [Lane(KEY, parts={"apply": 1})],
            batch_size=3), "parts of lane 0 must be among"),
        (lambda: lanes.Lanes(
            problem(), lambda key: PARAMS, lanes.Examples(X, Y),
            [Lane(KEY), Lane(KEY, parts={"project": MaxNorm(1.0)})], batch_size=3),
         "differ in more than numbers"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_part_of_a_lane_holds_numbers_alone():
    lane = Lane(KEY, parts={"average": ema(0.9)})
    with pytest.raises(TypeError, match="average of lane 0 must be a tree of numbers"):
        lanes.Lanes(problem(), lambda key: PARAMS, lanes.Examples(X, Y), [lane], batch_size=3)


def test_a_part_that_is_no_function_is_refused():
    with pytest.raises(TypeError, match="project must be a function or None, got 3"):
        problem(project=3)


def test_an_example_is_changed_by_a_key_of_its_own():
    """The same change in any batch; another one in each step."""

    def changes(batch_size: int, epochs: int) -> list[dict[int, float]]:
        """What was added to the rows, in each epoch."""

        def metrics(x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
            own = {str(row): jnp.where(y == row, x[0], 0.0) for row in range(6)}
            return {"loss": 0.0 * x.sum()} | own

        moving = Problem(
            lambda params, x, key: x,
            *(metrics, None, optax.sgd(1.0)),
            augment=lambda key, x: x + jax.random.uniform(key, x.shape),
        )
        made = fit(moving, PARAMS, X, np.arange(6), key=KEY, epochs=epochs, batch_size=batch_size)
        return [{row: 6 * m[str(row)] - X[row, 0] for row in range(6)} for m in made.history]

    first, second = changes(6, 2)
    assert all(0 <= change < 1 for change in first.values()) and len({*first.values()}) == 6
    assert all(abs(first[row] - second[row]) > 1e-4 for row in range(6))
    (halves,) = changes(3, 1)
    order = np.asarray(order_of(KEY, 0, 6)).tolist()
    same = [abs(first[row] - halves[row]) < 1e-5 for row in order]
    assert same == [True] * 3 + [False] * 3  # the second half is a step later
