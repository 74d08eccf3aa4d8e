"""The laws that every scheme obeys, each over every scheme, none skipped."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax.core.draw import CLEAN, Draw, deterministic, sampled
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain, Scheme, rate_fields
from dropjax.core.site import Kind
from dropjax.ops.lazy import Lazy, is_lazy
from dropjax.schemes import parse
from tests.cases import CASES, SCHEME_VALUES, SITES, Case, shape_of
from tests.statistics import assert_mean


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=str)


over_cases = over(CASES)
over_rated_cases = over([case for case in CASES if case.rated])
over_sampling_cases = over([case for case in CASES if case.samples])
over_same_size_cases = over([case for case in CASES if not case.scheme.resizes])
over_resizing_cases = over([case for case in CASES if case.scheme.resizes])
over_linear_cases = over([case for case in CASES if case.site.kind is Kind.LINEAR])
over_timed_cases = over(
    [case for case in CASES if case.site.axes[0] == "time" and not case.scheme.resizes]
)
over_schemes = pytest.mark.parametrize("scheme", SCHEME_VALUES, ids=str)


def realise(case: Case, keys: Keys, x: jax.Array, previous: jax.Array) -> jax.Array:
    return at_site(sampled(case.scheme, keys), case, x, previous)


def at_site(draw: Draw, case: Case, x: jax.Array, previous: jax.Array) -> jax.Array:
    """What a draw makes of x; where it acts on dense layers alone, of one whose weights are x."""
    if case.samples:
        return draw(x, case.site, previous)
    return draw.linear(jnp.eye(len(x), dtype=x.dtype), x, None, case.site)


def same_bits(a: jax.Array, b: jax.Array) -> bool:
    return a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


@over_same_size_cases
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_keeps_shape_and_dtype(case, dtype):
    x, previous = case.value(dtype), case.previous(dtype)
    for draw in (sampled(case.scheme, case.keys()), deterministic(case.scheme)):
        y = jax.eval_shape(functools.partial(at_site, draw, case), x, previous)
        assert (y.shape, y.dtype) == (x.shape, x.dtype)


@over_resizing_cases
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_leaves_out_rows_and_nothing_else(case, dtype):
    x, previous = case.value(dtype), case.previous(dtype)
    assert same_bits(at_site(deterministic(case.scheme), case, x, previous), x)
    y = realise(case, case.keys(), x, previous)
    assert y.shape[1:] == x.shape[1:] and 0 < len(y) < len(x) and y.dtype == x.dtype
    rows = [row.tobytes() for row in np.asarray(x)]
    found = [row.tobytes() for row in np.asarray(y)]
    assert set(found) < set(rows) and len(set(found)) == len(found)


@over([case for case in CASES if case.samples and not case.scheme.resizes])
def test_noise_broadcasts_against_the_value(case):
    noise = case.scheme.sample(case.keys().within(case.site.name), case.site, case.shape)
    shapes = [leaf.shape for leaf in jax.tree.leaves(noise, is_leaf=is_lazy)]
    for shape in shapes:
        assert np.broadcast_shapes(shape, case.shape) == case.shape
    assert case.scheme.noise_shape(case.site, case.shape) in shapes


@over_sampling_cases
def test_examples_of_a_step_share_their_noise_just_where_the_case_says_so(case):
    def noise(example):
        keys = Keys.of(jax.random.key(0), example).within(case.site.name)
        return jax.tree.leaves(case.scheme.sample(keys, case.site, case.shape))

    first, others = noise(0), (noise(i) for i in range(1, 8))
    shared = all(np.array_equal(a, b) for o in others for a, b in zip(first, o, strict=True))
    assert shared == case.shared_by_the_batch


@over_sampling_cases
def test_noise_can_be_looked_at(case):
    """As arrays of the shapes that it has, the same again each time."""
    noise = case.scheme.sample(case.keys(), case.site, case.shape)
    leaves = jax.tree.leaves(noise, is_leaf=is_lazy)
    for leaf in leaves:
        array = leaf.drawn() if isinstance(leaf, Lazy) else leaf
        assert array.shape == leaf.shape and array.dtype in (bool, np.float32, np.int32)


@over_rated_cases
def test_nothing_happens_at_rate_or_strength_0(case):
    x, previous = case.value(), case.previous()
    for scheme in (case.at_rate(0.0), case.scheme.scaled(0.0)):
        for draw in (sampled(scheme, case.keys()), deterministic(scheme)):
            assert same_bits(at_site(draw, case, x, previous), x)


@over([c for c in CASES if c.rated and not (c.scheme.resizes or c.scheme.train_only)])
def test_nothing_of_x_is_left_at_rate_1_but_where_the_case_says_so(case):
    full, x, previous = Case(case.at_rate(1.0), case.site), case.value(), case.previous()
    left = any(
        not same_bits(*(realise(full, case.keys(i), value, previous) for value in (x, x + 1)))
        for i in range(4)
    )
    assert left == case.leaves_some_at_rate_1


@over([case for case in CASES if not case.rated])
def test_strength_does_nothing_where_there_is_no_rate(case):
    assert case.scheme.scaled(0.0) is case.scheme or case.scheme.scaled(0.0) == case.scheme


@over_same_size_cases
def test_something_happens_at_its_rate(case):
    x, previous = case.value(), case.previous()
    assert any(bool(jnp.any(realise(case, case.keys(i), x, previous) != x)) for i in range(32))


@over_same_size_cases
def test_mean_over_noise_is_expected(case):
    x, previous = case.value(), case.previous()
    keys = jax.vmap(jax.random.key)(jnp.arange(4000))
    draws = jax.vmap(lambda key: realise(case, Keys.of(key), x, previous))(keys)
    evaluated = at_site(deterministic(case.scheme), case, x, previous)
    if case.scheme.expected_is_mean:
        assert_mean(draws, evaluated)
    else:  # then the paper's own moments are tested beside the scheme
        assert same_bits(evaluated, x)


@over_linear_cases
def test_mean_of_a_linear_layer_is_expected(case):
    w, x = case.value(), jax.random.normal(jax.random.key(1), case.shape[:1])
    b = jnp.arange(case.shape[1], dtype=jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(4000))
    draws = jax.vmap(lambda k: sampled(case.scheme, k).linear(x, w, b, case.site))(keys)
    evaluated = deterministic(case.scheme).linear(x, w, b, case.site)
    if case.scheme.expected_is_mean:
        assert_mean(draws, evaluated)
    else:
        assert same_bits(evaluated, x @ w + b)


@over([c for c in CASES if c.scheme.linear_in_x and not c.scheme.resizes])
def test_gradient_is_the_factor_that_x_was_multiplied_by(case):
    """So it is exactly 0 where x was dropped, and the scale where it was kept."""
    x, previous, ct = case.value(), case.previous(), jnp.full(case.shape, 3.0)

    def gradient_and_factor(keys):
        def at(x):
            return realise(case, keys, x, previous)

        y, pullback = jax.vjp(at, x)
        (gradient,) = pullback(ct)
        untouched_by_x = np.asarray(y) == np.asarray(at(x + 1))
        return gradient, at(jnp.ones_like(x)) - at(jnp.zeros_like(x)), untouched_by_x

    if case.scheme.gradient_is_factor:
        gradient, factor, untouched_by_x = gradient_and_factor(case.keys())
        np.testing.assert_allclose(gradient, factor * ct, rtol=1e-6, atol=1e-6)
        assert np.all(np.asarray(gradient)[untouched_by_x] == 0)
    else:  # then the gradient is tested beside the scheme
        pairs = [gradient_and_factor(case.keys(i))[:2] for i in range(32)]
        assert not all(np.allclose(gradient, factor * ct) for gradient, factor in pairs)


@over([c for c in CASES if not c.scheme.linear_in_x])
def test_gradient_is_the_slope_for_given_noise(case):
    x, previous = case.value(), case.previous()
    direction = jax.random.normal(jax.random.key(5), x.shape)

    def along(step):
        return realise(case, case.keys(), x + step * direction, previous)

    width = 2e-3
    slope = (along(width) - along(-width)) / (2 * width)
    _, tangent = jax.jvp(along, (0.0,), (1.0,))
    np.testing.assert_allclose(tangent, slope, rtol=2e-2, atol=2e-3)


@over_cases
def test_same_key_same_output_and_other_key_other_output(case):
    x, previous = case.value(), case.previous()
    first = realise(case, case.keys(0), x, previous)
    assert same_bits(first, realise(case, case.keys(0), x, previous))
    assert any(not same_bits(first, realise(case, case.keys(i), x, previous)) for i in range(1, 33))


@over_cases
def test_jit_equals_eager(case):
    x, previous = case.value(), case.previous()
    compiled = jax.jit(lambda c, k: realise(Case(c, case.site), k, x, previous))
    eager = realise(case, case.keys(), x, previous)
    np.testing.assert_allclose(compiled(case.scheme, case.keys()), eager, rtol=1e-6, atol=1e-6)


@over_cases
def test_vmap_equals_loop(case):
    x, previous = case.value(), case.previous()
    rows = jnp.arange(3)

    def one(row):
        return realise(case, Keys.of(jax.random.key(7), row), x, previous)

    for batched, row in zip(jax.vmap(one)(rows), rows, strict=True):
        np.testing.assert_allclose(batched, one(row), rtol=1e-6, atol=1e-6)


@over_rated_cases
def test_gradients_are_finite_at_a_traced_rate_of_1(case):
    x, previous = case.value(), case.previous()

    def total(x, rate):
        at = Case(case.at_rate(rate), case.site)
        return jnp.sum(realise(at, case.keys(), x, previous))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))
    for rate in (0.0, 0.5, 1.0):
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in gradients(x, rate))


@over_cases
def test_does_not_retrace_when_rate_strength_or_key_change(case):
    traces = []

    @jax.jit
    def run(scheme, strength, keys, x, previous):
        traces.append(None)
        return realise(Case(scheme.scaled(strength), case.site), keys, x, previous)

    for i, (rate, strength) in enumerate([(0.1, 1.0), (0.5, 1.0), (0.5, 0.5)]):
        scheme = case.at_rate(rate)
        # Traced as a call is, by the cache of `run`, but not compiled.
        jax.eval_shape(run, scheme, strength, case.keys(i), case.value(), case.previous())
    assert len(traces) == 1


@over_rated_cases
def test_rates_stack_into_lanes(case):
    x, previous = case.value(), case.previous()
    rates = [0.1, 0.6]
    schemes = [case.at_rate(rate) for rate in rates]
    together = jnp.asarray(rates)
    stacked = case.at_rate(together)
    axes = jax.tree.unflatten(
        jax.tree.structure(case.scheme),
        [0 if leaf is together else None for leaf in jax.tree.leaves(stacked)],
    )
    lanes = jax.vmap(
        lambda scheme: realise(Case(scheme, case.site), case.keys(), x, previous), in_axes=(axes,)
    )(stacked)
    for lane, scheme in zip(lanes, schemes, strict=True):
        alone = realise(Case(scheme, case.site), case.keys(), x, previous)
        np.testing.assert_allclose(lane, alone, rtol=1e-6, atol=1e-6)


@over_timed_cases
def test_noise_before_a_scan_and_applied_inside_equals_the_whole(case):
    """Row t of the noise does to step t what the noise does to all."""
    x, previous = case.value(), case.previous()
    draw = sampled(case.scheme, case.keys())
    noise = draw.noise(case.site, case.shape)

    def step(carry, inputs):
        t, x_t, previous_t = inputs
        return carry, draw.apply(draw.at(noise, t), x_t, case.site, previous_t)

    _, rows = jax.lax.scan(step, 0, (jnp.arange(len(x)), x, previous))
    np.testing.assert_allclose(rows, draw(x, case.site, previous), rtol=1e-6)


@over_sampling_cases
def test_links_of_a_chain(case):
    """The first link draws what it draws alone; a second, equal one draws another mask."""
    x, previous, keys = jnp.ones(case.shape), jnp.zeros(case.shape), case.keys()
    first = realise(case, keys, x, previous)
    chain = Chain((case.scheme, case.scheme))
    noise = sampled(chain, keys).noise(case.site, case.shape)
    assert same_bits(case.scheme.apply(noise[0], x, case.site, previous), first)
    others = [sampled(chain, case.keys(i)).noise(case.site, case.shape) for i in range(8)]
    assert any(
        not same_bits(a, b)
        for one, two in others
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    )


@over_linear_cases
def test_a_linear_site_takes_one_link(case):
    draw = sampled(Chain((case.scheme, case.scheme)), case.keys())
    with pytest.raises(ValueError, match="takes one"):
        draw.linear(jnp.ones(case.shape[:1]), case.value(), None, case.site)


@over_cases
def test_forks_are_independent_of_each_other(case):
    draw, x = sampled(case.scheme, case.keys()), case.value()
    forks = [at_site(draw.fork(i), case, x, case.previous()) for i in range(8)]
    assert any(not same_bits(forks[0], fork) for fork in forks[1:])
    assert same_bits(forks[1], at_site(draw.fork(1), case, x, case.previous()))


@over_schemes
def test_sites_it_does_not_want_are_untouched(scheme):
    for kind, site in SITES.items():
        if kind in scheme.acts_on:
            continue
        assert not scheme.wants(site)
        x = jax.random.normal(jax.random.key(0), shape_of(site))
        for draw in (sampled(scheme, jax.random.key(1)), deterministic(scheme), CLEAN):
            assert same_bits(draw(x, site, x + 1), x)
            if kind is Kind.LINEAR:
                assert same_bits(draw.linear(x[:, 0], x, None, site), x[:, 0] @ x)


@over_schemes
def test_text_round_trip(scheme):
    assert parse(str(scheme)) == scheme
    named = dataclasses.replace(scheme, at='a"b|(c)') if scheme.acts_on else scheme
    assert parse(str(named)) == named
    assert parse(f"{named}|{named}") == Chain((named, named))


@over_schemes
def test_is_a_hashable_value_and_a_pytree_of_numbers(scheme):
    assert hash(scheme) == hash(dataclasses.replace(scheme))
    leaves, structure = jax.tree.flatten(scheme)
    assert all(isinstance(leaf, float) for leaf in leaves)
    assert jax.tree.unflatten(structure, leaves) == scheme


@over_schemes
def test_bad_rates_are_refused(scheme):
    for field in rate_fields(type(scheme)):
        wrong = [-0.1, float("nan")] + [1.5] * (field != "std")
        for value in wrong:
            with pytest.raises(ValueError, match=rf"{field} .*(\[0, 1\]|at least 0)"):
                dataclasses.replace(scheme, **{field: value})
        for value in (True, "half", None):
            with pytest.raises(TypeError, match=field):
                dataclasses.replace(scheme, **{field: value})


def test_base_class_leaves_sampling_to_the_scheme():
    with pytest.raises(NotImplementedError):
        Scheme().sample(Keys.of(jax.random.key(0)), SITES[Kind.HIDDEN], (3,))
