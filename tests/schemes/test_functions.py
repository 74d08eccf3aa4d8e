"""What holds of every function that makes noise on an array, beside what its own tests say."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dropjax
from tests.cases import LEAVE_SOME, SCHEME_CLASSES
from tests.compiled import compiled, normal, ones
from tests.ops.test_mask import bytes_kept

KEY = jax.random.key(5)
X = np.round(16 * normal(4, 5, 6)) / 16  # without an error in half precision
W, TOKENS = normal(6, 3), X.astype(int)
LINEAR = [
    "dropconnect_gaussian",
    "dropconnect_linear",
    "sparse_variational_linear",
    "variational_gaussian_linear",
]
GIVEN: dict[str, dict[str, Any]] = {
    "cutout": {"size": 2},
    "drop_path": {"batch_axes": 0},
    "dropblock": {"block_size": 2},
    "head_drop": {"head_axis": 1, "batch_axes": 0},
    "layer_drop": {"previous": -X, "batch_axes": 0},
    "mixout": {"previous": -X},
    "shake_drop": {"batch_axes": 0},
    "weight_drop": {"match": ""},
    "word_dropout": {"unknown": 1},
    "zoneout": {"previous": -X},
    **{name: {"w": W} for name in LINEAR},
}
"""What they take besides a key, an array and a rate."""

PARAMETERS = {
    name: list(inspect.signature(value).parameters)
    for name, value in vars(dropjax).items()
    if name in dropjax.__all__ and inspect.isfunction(value)
}
FUNCTIONS = [name for name, of in PARAMETERS.items() if of[0] == "key" and of[1] in ("x", "w")]
OF_ONE_LENGTH = ["controlled_dropout", "patch_dropout"]
"""Their rate decides how much is left of x."""
LEARNED = ["concrete_dropout", "information_dropout"]
"""Their rate has a gradient."""
_OF_SCHEMES = {cls.__module__ for cls in LEAVE_SOME}
LEAVES_SOME = {
    *("gaussian_noise", "information_dropout", "uout"),
    *(name for name in FUNCTIONS if getattr(dropjax, name).__module__ in _OF_SCHEMES),
}
"""At a rate of 1 some of x is left, as their own tests say."""
_WITHOUT_MEAN = {cls.__module__ for cls in SCHEME_CLASSES if not cls.expected_is_mean}
KEPT = {"concrete_dropout": 32, "head_drop": 36, "shake_drop": 36}
"""Bytes for the backward pass of X where they are more than 24."""
OF_PARTS = [
    "cutout",
    "drop_path",
    "dropblock",
    "embedding_dropout",
    "feature_alpha_dropout",
    "head_drop",
    "layer_drop",
    "random_erasing",
    "rnn_drop",
    "shake_drop",
    "spatial_dropout",
    "variational_dropout",
]
"""Elements share their noise, so that a rate for each of them does not fit."""
OF_IMAGES = ["cutout", "dropblock", "random_erasing"]
"""Large programs, so that their own tests are enough."""
SAME_SHAPE = [
    name for name in FUNCTIONS if name not in (*LINEAR, *OF_ONE_LENGTH, *OF_IMAGES, "word_dropout")
]
SHARING = [name for name in SAME_SHAPE if "shared_axes" in PARAMETERS[name]]

each = pytest.mark.parametrize("name", FUNCTIONS)


def call(name, key, x, rate, **options):
    given = GIVEN.get(name, {})
    if "previous" in given:
        given = given | {"previous": given["previous"].astype(x.dtype)}
    return getattr(dropjax, name)(key, x, rate, **given | options)


def test_all_are_here():
    assert len(FUNCTIONS) > 25 and {*GIVEN, *OF_ONE_LENGTH, *LEAVES_SOME, *KEPT} <= {*FUNCTIONS}


@each
def test_what_is_no_key_or_holds_no_floats_is_refused(name):
    array = PARAMETERS[name][1]
    x, wrong = (TOKENS, X) if name == "word_dropout" else (X, TOKENS)
    with pytest.raises(TypeError, match=r"^key must be a PRNG key"):
        call(name, 0, x, 0.5)
    with pytest.raises(TypeError, match=rf"^{array} must be an array of (floats|tokens)"):
        call(name, KEY, wrong, 0.5)


@each
def test_a_rate_out_of_range_or_that_does_not_fit_is_refused(name):
    third = PARAMETERS[name][2]
    x = TOKENS if name == "word_dropout" else X
    said = "one number" if name in OF_ONE_LENGTH else "does not broadcast"
    for shape in ((2,), *[x.shape] * (name in OF_PARTS)):
        with pytest.raises(ValueError, match=rf"^{third} .*{said}"):
            call(name, KEY, x, np.full(shape, 0.5, np.float32))
    if third.startswith("log_"):
        return
    said = r"is the probability of dropping, in \[0, 1\]" if third == "rate" else "must be finite"
    for rate in (-0.1, np.nan, np.inf, *[1.5] * (third == "rate")):
        with pytest.raises(ValueError, match=rf"^{third} {said}.*; got {rate}"):
            call(name, KEY, x, rate)
    for rate in ("a", None, True):
        if (name, rate) != ("gaussian_dropout", None):
            with pytest.raises(TypeError, match=rf"^{third} must be"):
                call(name, KEY, x, rate)


@pytest.mark.parametrize("name", [*dropjax.expected.__all__, "dropconnect_moments"])
def test_an_expectation_refuses_what_the_function_does(name):
    f = getattr(dropjax.expected, name, None) or getattr(dropjax, name)
    array, third, *_ = names = list(inspect.signature(f).parameters)
    given = GIVEN.get(name, {"w": W}) | {"normalize": "none"}
    given = {n: value for n, value in given.items() if n in names[1:]}

    def of(x, *rate):
        return f(x, *rate, **given)

    rate = (0.5,) if third != "w" else ()
    with pytest.raises(TypeError, match=f"^{array} must be an array of floats"):
        of(TOKENS, *rate)
    if rate and not third.startswith("log_"):
        with pytest.raises(ValueError, match=f"^{third} .*; got -0.1"):
            of(X, -0.1)
        with pytest.raises(ValueError, match=f"^{third} .*; got nan"):
            of(X, np.nan)
        with pytest.raises(TypeError, match=f"^{third} must be"):
            of(X, "a")


@pytest.mark.parametrize(
    "name, axes", [(n, p) for n in FUNCTIONS for p in PARAMETERS[n] if p.endswith(("axes", "axis"))]
)
def test_axes_that_x_has_not_or_named_twice_are_refused(name, axes):
    many = axes.endswith("axes")
    with pytest.raises(ValueError, match=f"^{axes} names axis 3, but x has 3 axes"):
        call(name, KEY, X, 0.5, **{axes: (0, 3) if many else 3})
    if many:
        with pytest.raises(ValueError, match=f"^{axes} names an axis twice"):
            call(name, KEY, X, 0.5, **{axes: (1, -2)})


@pytest.mark.parametrize(
    "name", [n for n in SAME_SHAPE if n not in ("standout", "targeted_dropout")]
)
def test_nothing_is_kept_for_each_element(name):
    for rate in (0.3, jnp.float32(0.3)):
        for wrapped in (lambda f: f, jax.jit):
            f = wrapped(lambda x, rate=rate: call(name, KEY, x, rate))
            assert bytes_kept(f, X) <= KEPT.get(name, 24) < X.size


@compiled
def values_and_slopes(x, rate):
    def of(name):
        y, pullback = jax.vjp(lambda x: call(name, KEY, x, rate), x)
        return y, pullback(jnp.ones_like(y))[0]

    return {name: of(name) for name in SAME_SHAPE}


@pytest.mark.parametrize("of", [float, lambda rate: np.asarray(rate, np.float32)])
def test_rate_0_is_the_identity_to_the_bit_and_rate_1_leaves_zeros_and_zero_slopes(of):
    """Whether the rate is fixed in a program or its argument, and of what is not finite too."""
    x = X.copy()
    x[0, 0, :4] = [0.0, -0.0, np.inf, -np.inf]
    for name, (y, slopes) in values_and_slopes(x, of(0)).items():
        assert y.tobytes() == x.tobytes(), name
        assert (slopes == 1).all(), name
    for name, (y, slopes) in values_and_slopes(x, of(1)).items():
        if name not in LEAVES_SOME:
            why = f"{name} leaves some of x. If that is right, add its scheme to cases.LEAVE_SOME"
            assert (slopes == 0).all(), why
            # What is dropped need not be 0, if it has no mean with what is kept.
            dropped = y.flat[0] if getattr(dropjax, name).__module__ in _WITHOUT_MEAN else 0
            assert (y == GIVEN.get(name, {}).get("previous", dropped)).all(), why


def test_no_gradient_goes_to_the_rate():
    @compiled
    def slopes(rate):
        def total(name):
            return lambda rate: call(name, KEY, X, rate).sum()

        return {n: jax.grad(total(n))(rate) for n in SAME_SHAPE if n not in LEARNED}

    for rate in (0.0, 0.3, 1.0):
        found = slopes(np.asarray(rate, np.float32))
        assert all(slope == 0 for slope in found.values()), found


def test_half_precision_is_that_of_float32_rounded_once():
    @compiled
    def every(x, rate):
        return {name: call(name, KEY, x, rate) for name in SAME_SHAPE}

    rate = np.asarray(0.7, np.float32)
    wide = values_and_slopes(X, rate)
    for dtype in ("bfloat16", "float16"):
        x = X.astype(dtype)
        for name, y in every(x, rate).items():
            assert y.dtype == dtype and (y != x).any(), name
            np.testing.assert_array_equal(y, wide[name][0].astype(dtype), err_msg=name)
        for name in OF_IMAGES:
            assert jax.eval_shape(lambda x, n=name: call(n, KEY, x, 0.7), x).dtype == dtype


def test_shared_axes_share_one_decision():
    @compiled
    def every(x):
        return {name: call(name, KEY, x, 0.5, shared_axes=(0, -1)) for name in SHARING}

    for name, y in every(ones(4, 50, 6)).items():
        assert (y == y[:1, :, :1]).all() and len(np.unique(y)) > 1, name


DROPOUT = [
    ("attention_dropout", {}, ()),
    ("dropconnect", {}, ()),
    ("embedding_dropout", {}, 2),
    ("recurrent_dropout", {}, ()),
    ("recurrent_dropout", {"time_axis": 1}, 1),
    ("rnn_drop", {}, 1),
    ("rnn_drop", {"time_axis": 0}, 0),
    ("spatial_dropout", {}, (0, 1)),
    ("spatial_dropout", {"spatial_axes": -2}, 1),
    ("spatial_dropout", {"spatial_axes": [1, -1]}, (1, 2)),
    ("variational_dropout", {}, 1),
    ("variational_dropout", {"time_axis": 0}, 0),
]
"""They are dropout of which some axes share a decision."""


def test_what_is_dropout_with_shared_axes():
    @compiled
    def of_each(x):
        found = [call(name, KEY, x, 0.3, **options) for name, options, _ in DROPOUT]
        wanted = [dropjax.dropout(KEY, x, 0.3, shared_axes=axes) for _, _, axes in DROPOUT]
        images = [
            dropjax.feature_alpha_dropout(KEY, x, 0.3, **options)
            for options in ({}, {"spatial_axes": (-1, 0)})
        ]
        alpha = [dropjax.alpha_dropout(KEY, x, 0.3, shared_axes=axes) for axes in ((0, 1), (0, 2))]
        return [*found, *images], [*wanted, *alpha]

    for found, wanted in zip(*of_each(1 + X**2), strict=True):
        np.testing.assert_array_equal(found, wanted)
