"""The laws that every scheme obeys, for those of dropjax and for one's own.

A law is a sentence and a function that looks whether it holds. `check` tries all of them on a
scheme, at a site of every kind that it can act on, and also with values of size 1 along an axis.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dropjax.core.draw import deterministic, keys_at, sampled
from dropjax.core.keys import Keys
from dropjax.core.scheme import Chain, Rate, Scheme, rate_fields
from dropjax.core.site import KINDS, Kind, Site
from dropjax.core.spec import parse
from dropjax.core.trial import (
    COTANGENT,
    DRAWS,
    FINITE_AT,
    LANES,
    RATES,
    SIGMAS,
    WIDTH,
    Trial,
    keys_at_site,
    normal,
    run_compiled,
    same_bits,
    shape_of,
    sigmas_off,
    site_of,
)
from dropjax.ops.lazy import Lazy, is_lazy

Array = jax.Array
_DTYPES = ("float32", "bfloat16", "float16")

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, eq=False)
class Law(Generic[T]):
    """What holds of every scheme.

    Args:
      says: the law, a sentence.
      advice: what to do if it does not hold.
      breach: says how the law is broken, "" if it holds. An error is a breach too.
      applies: whether the law says anything about that scheme there.
    """

    says: str
    advice: str
    breach: Callable[[T], str]
    applies: Callable[[T], bool] = lambda tried: True

    @property
    def name(self) -> str:
        return self.breach.__name__.strip("_")


def _text_round_trip(scheme: Scheme) -> str:
    named = dataclasses.replace(scheme, at='a"b|(c)') if scheme.acts_on else scheme
    for value, text in [
        (scheme, str(scheme)),
        (named, str(named)),
        (Chain((named, named)), f"{named}|{named}"),
    ]:
        if (read := parse(text)) != value:
            return f"{text} is read as {read!r}"
    return ""


def _is_a_hashable_value_and_a_pytree_of_numbers(scheme: Scheme) -> str:
    if hash(scheme) != hash(dataclasses.replace(scheme)):
        return "an equal scheme has another hash"
    leaves, structure = jax.tree.flatten(scheme)
    if any(leaf is scheme for leaf in leaves):
        return "it is no pytree, so that its rates would be constants of compiled code"
    if wrong := [leaf for leaf in leaves if not isinstance(leaf, float)]:
        return f"{wrong[0]!r} is a leaf, but no float"
    if jax.tree.unflatten(structure, leaves) != scheme:
        return "what is made of its leaves is not equal to it"
    return ""


def _bad_rates_are_refused(scheme: Scheme) -> str:
    hints = typing.get_type_hints(type(scheme), include_extras=True)
    for field in rate_fields(type(scheme)):
        wrong = [(value, ValueError) for value in (-0.1, float("nan"))]
        wrong += [(1.5, ValueError)] * (hints[field] == Rate)
        wrong += [(value, TypeError) for value in (True, "half", None)]
        for value, error in wrong:
            try:
                dataclasses.replace(scheme, **{field: value})
            except error as refusal:
                bounds = ("[0, 1]", "at least 0") if error is ValueError else ("",)
                if field not in str(refusal) or not any(b in str(refusal) for b in bounds):
                    return f"{field}={value!r} is refused without a reason: {refusal}"
            else:
                return f"{field}={value!r} is taken"
    return ""


def _acts_somewhere(scheme: Scheme) -> str:
    perturbs = type(scheme).sample is not Scheme.sample or type(scheme).linear is not Scheme.linear
    if perturbs and not scheme.acts_on and not scheme.can_act_on:
        return "acts_on names no kind"
    return ""


def _sites_it_does_not_want_are_untouched(scheme: Scheme) -> str:
    draws = (sampled(scheme, jax.random.key(1)), deterministic(scheme))
    for kind in Kind:
        if kind in scheme.acts_on:
            continue
        site = site_of(kind)
        if scheme.wants(site):
            return f"it wants {kind.name} sites, which acts_on does not name"
        x = jnp.asarray(normal(0, shape_of(site)))
        for draw in draws:
            y = draw(x, site, -x)
            same = y is x or same_bits(y, x)
            if kind is Kind.LINEAR:
                same = same and same_bits(draw.linear(x[:, 0], x, None, site), x[:, 0] @ x)
            if not same:
                return f"it changes the value at a {kind.name} site, which acts_on does not name"
    return ""


def _strength_does_nothing_where_there_is_no_rate(scheme: Scheme) -> str:
    if rate_fields(type(scheme)):
        return ""
    scaled = scheme.scaled(0.0)
    return "" if scaled is scheme or scaled == scheme else f"under strength 0 it is {scaled}"


SCHEME_LAWS: tuple[Law[Scheme], ...] = (
    Law(
        "It is a hashable value, and a pytree whose leaves are its floats.",
        "Decorate the class with dropjax.schemes.scheme; its numbers are of type float or Rate.",
        _is_a_hashable_value_and_a_pytree_of_numbers,
    ),
    Law(
        "Its text is read back as the same scheme.",
        "Let it be a dataclass of numbers, texts and booleans in a module that can be imported, "
        "and leave __str__ as it is.",
        _text_round_trip,
    ),
    Law(
        "A rate outside [0, 1], a NaN, or what is no number is refused by the name of its field.",
        "Annotate the field dropjax.schemes.Rate, and call super().__post_init__() in your own.",
        _bad_rates_are_refused,
    ),
    Law(
        "It acts on some kind of sites.",
        "Set acts_on in the class, as in acts_on: ClassVar = frozenset({Kind.HIDDEN}).",
        _acts_somewhere,
    ),
    Law(
        "A site of a kind that it does not name is left as it is.",
        "Leave `wants` as it is, and name the kinds in acts_on.",
        _sites_it_does_not_want_are_untouched,
    ),
    Law(
        "Strength changes nothing of a scheme without a rate.",
        "Annotate what strength should scale dropjax.schemes.Rate.",
        _strength_does_nothing_where_there_is_no_rate,
    ),
)


def _keeps_shape_and_dtype(trial: Trial) -> str:
    for dtype in _DTYPES:
        if breach := _other_shape(trial, dtype) or _other_shape(trial, dtype, traced=True):
            return breach
    return ""


def _keeps_shape(trial: Trial) -> str:
    return _other_shape(trial, "float32")


def _other_shape(trial: Trial, dtype: str, *, traced: bool = False) -> str:
    x = jax.ShapeDtypeStruct(trial.shape, dtype)
    rate = jax.ShapeDtypeStruct((), np.float32)
    rates = jax.tree.map(lambda leaf: rate if isinstance(leaf, float) else leaf, trial.scheme)

    def call(scheme: Scheme, x: Array, previous: Array) -> dict[str, Array]:
        draws = {"apply": sampled(scheme, trial.keys()), "expected": deterministic(scheme)}
        return {name: trial.through(draw, x, previous) for name, draw in draws.items()}

    if traced:
        made = jax.eval_shape(call, rates, x, x)
    else:
        made = jax.eval_shape(functools.partial(call, trial.scheme), x, x)
    for name, y in made.items():
        if (y.shape, y.dtype) != (x.shape, x.dtype):
            how = " with a traced rate" if traced else ""
            return f"of {dtype}{list(x.shape)} `{name}`{how} makes {y.dtype}{list(y.shape)}"
    return ""


def _leaves_out_rows_and_nothing_else(trial: Trial) -> str:
    for dtype in _DTYPES:
        x, previous = jnp.asarray(trial.x).astype(dtype), jnp.asarray(trial.previous).astype(dtype)
        if not same_bits(trial.through(deterministic(trial.scheme), x, previous), x):
            return f"of {dtype} `expected` is not x"
        y = trial.through(sampled(trial.scheme, trial.keys()), x, previous)
        if not (y.shape[1:] == x.shape[1:] and 0 < len(y) < len(x) and y.dtype == x.dtype):
            return f"of {dtype}{list(x.shape)} it makes {y.dtype}{list(y.shape)}"
        rows = {row.tobytes() for row in np.asarray(x)}
        kept = [row.tobytes() for row in np.asarray(y)]
        if not (set(kept) < rows and len(set(kept)) == len(kept)):
            return f"of {dtype} it makes other rows than those of x, or one twice"
    return ""


def _noise_broadcasts_against_the_value(trial: Trial) -> str:
    def noise() -> Any:
        return trial.scheme.sample(trial.keys().within(trial.site.name), trial.site, trial.shape)

    leaves = jax.tree.leaves(jax.eval_shape(noise), is_leaf=is_lazy)
    shapes = [tuple(leaf.shape) for leaf in leaves]
    for shape in shapes:
        try:
            fits = np.broadcast_shapes(shape, trial.shape) == trial.shape
        except ValueError:
            fits = False
        if not fits:
            return f"noise of shape {shape} does not broadcast to a value of shape {trial.shape}"
    told = trial.scheme.noise_shape(trial.site, trial.shape)
    return "" if told in shapes else f"noise_shape says {told}, but `sample` makes {shapes}"


def _noise_can_be_looked_at(trial: Trial) -> str:
    leaves: list[Any] = []

    def drawn() -> list[Array]:
        noise = trial.scheme.sample(trial.keys(), trial.site, trial.shape)
        leaves.extend(jax.tree.leaves(noise, is_leaf=is_lazy))
        return [leaf.drawn() if isinstance(leaf, Lazy) else leaf for leaf in leaves]

    for array, shape in zip(jax.eval_shape(drawn), [leaf.shape for leaf in leaves], strict=True):
        if array.shape != shape or array.dtype not in (bool, np.float32, np.int32):
            return f"noise of shape {shape} is {array.dtype}{list(array.shape)} as an array"
    return ""


def _examples_share_their_noise_only_where_they_may(trial: Trial) -> str:
    def noise(example: int) -> list[Array]:
        keys = keys_at(Keys.of(jax.random.key(0), example), trial.site, 0)
        return jax.tree.leaves(trial.scheme.sample(keys, trial.site, trial.shape))

    first = noise(0)
    shared = all(
        np.array_equal(a, b)
        for other in map(noise, range(1, 8))
        for a, b in zip(first, other, strict=True)
    )
    if shared and not trial.shared:
        return "eight examples of a step have the same noise"
    return "their noise differs" if trial.shared and not shared else ""


def _nothing_happens_at_rate_or_strength_0(trial: Trial) -> str:
    for name, scheme in [
        ("rate 0", trial.at_rate(0.0)),
        ("strength 0", trial.scheme.scaled(0.0)),
    ]:
        for how, y in [
            ("with noise", trial.eager(trial.keys(), scheme)),
            ("with noise and a traced rate", trial.computed[name].y[0]),
            ("at evaluation", trial.evaluated(scheme)),
        ]:
            if not same_bits(y, trial.x):
                return f"at {name}, {how}, the value changes: {_first_change(y, trial.x)}"
    return ""


def _first_change(y: np.ndarray, x: np.ndarray) -> str:
    if (y.shape, y.dtype) != (x.shape, x.dtype):
        return f"it is {y.dtype}{list(y.shape)}"
    different = y.view(f"u{y.itemsize}") != x.view(f"u{x.itemsize}")
    where = tuple(map(int, np.argwhere(different)[0]))
    return f"x{list(where)} = {x[where]:g} becomes {y[where]:g}"


def _something_happens_at_its_rate(trial: Trial) -> str:
    changed = np.any(trial.computed["own"].y[:32] != trial.x)
    return "" if changed else "32 draws left the value as it is"


def _mean_over_noise_is_expected(trial: Trial) -> str:
    return _mean_broken(trial, trial.computed["own"].y, trial.evaluated(), trial.x)


def _mean_broken(trial: Trial, draws: np.ndarray, evaluated: np.ndarray, x: Any) -> str:
    if not trial.scheme.expected_is_mean:
        # Then what the paper says of its moments is tested beside the scheme.
        return "" if same_bits(evaluated, x) else "expected_is_mean is False, but it is not x"
    off = sigmas_off(draws, evaluated)
    if off <= SIGMAS:
        return ""
    mean, wanted = draws.astype(np.float64).mean(0), np.asarray(evaluated, np.float64)
    words = f"the mean of {len(draws)} draws is off by {off:.1f} standard errors"
    if total := float((wanted * wanted).sum()):
        words += f"; it is about {float((mean * wanted).sum()) / total:.2g} times `expected`"
    return words


def _mean_of_a_linear_layer_is_expected(trial: Trial) -> str:
    scheme, site = trial.scheme, trial.site
    w, b = jnp.asarray(trial.x), jnp.arange(trial.shape[1], dtype=jnp.float32)
    x = jnp.asarray(normal(1, trial.shape[:1]))
    keys = jax.tree.map(lambda leaf: leaf[:DRAWS], keys_at_site(site))
    over_keys = jax.vmap(
        lambda keys, x, w, b: scheme.linear(keys, x, w, b, site), in_axes=(0, None, None, None)
    )
    draws = run_compiled(over_keys, keys, x, w, b)
    eager = np.asarray(sampled(scheme, trial.keys()).linear(x, w, b, site))
    if not np.allclose(draws[0], eager, rtol=1e-5, atol=1e-5):
        return "compiled, it is another layer than computed operation by operation"
    evaluated = np.asarray(deterministic(scheme).linear(x, w, b, site))
    return _mean_broken(trial, draws, evaluated, x @ w + b)


def _gradient_is_the_factor_that_x_was_multiplied_by(trial: Trial) -> str:
    own, ones, zeros = (trial.computed[name] for name in ("own", "ones", "zeros"))
    number = len(ones.y)
    gradient, factor = own.gradient[:number], (ones.y - zeros.y) * np.float32(COTANGENT)
    if not trial.scheme.gradient_is_factor:  # then the gradient is tested beside the scheme
        same = np.allclose(gradient, factor)
        return "gradient_is_factor is False, but the gradient is the factor" if same else ""
    if not np.allclose(gradient[0], factor[0], rtol=1e-6, atol=1e-6):
        gap = np.max(np.abs(gradient[0] - factor[0])) / COTANGENT
        return f"the gradient is off by up to {gap:.3g} from apply(1) - apply(0)"
    untouched = own.y[0] == trial.computed["x + 1"].y[0]
    if np.any(gradient[0][untouched] != 0):
        return "where x does not enter the result, the gradient is not exactly 0"
    return ""


def _gradient_is_the_slope_for_given_noise(trial: Trial) -> str:
    forward, backward = trial.computed["forward"].y[0], trial.computed["backward"].y[0]
    slope, tangent = (forward - backward) / (2 * WIDTH), trial.computed["own"].tangent[0]
    if np.allclose(tangent, slope, rtol=2e-2, atol=2e-3):
        return ""
    return f"the derivative is off by up to {np.max(np.abs(tangent - slope)):.3g} from the slope"


def _same_key_same_output_and_other_key_other_output(trial: Trial) -> str:
    first = trial.eager(trial.keys())
    if not same_bits(first, trial.eager(trial.keys())):
        return "the same key gives another result when it is used again"
    rows = trial.computed["own"].y
    if not any(not same_bits(rows[0], rows[i]) for i in range(1, 33)):
        return "33 keys give one result"
    return ""


def _jit_equals_eager(trial: Trial) -> str:
    return _unlike(trial.computed["own"].y[0], trial.eager(trial.keys()))


def _unlike(a: np.ndarray, b: np.ndarray) -> str:
    if a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-6):
        return ""
    return (
        "it is another result"
        if a.shape != b.shape
        else (f"they differ by up to {np.max(np.abs(a.astype(np.float64) - b)):.3g}")
    )


def _vmap_equals_loop(trial: Trial) -> str:
    def one(row: Array) -> Array:
        draw = sampled(trial.scheme, Keys.of(jax.random.key(7), row))
        return trial.through(draw, jnp.asarray(trial.x), jnp.asarray(trial.previous))

    rows = jnp.arange(3)
    jax.eval_shape(jax.vmap(one), rows)  # mapped over examples alone, as training does
    for number, y in enumerate(trial.computed["examples"].y):
        keys = Keys.of(jax.random.key(7), number)
        if difference := _unlike(y, trial.eager(keys)):
            return f"row {number}: {difference}"
    return ""


def _gradients_are_finite_at_a_traced_rate_of_1(trial: Trial) -> str:
    for rate in FINITE_AT:
        rows = trial.computed[f"finite at {rate}"]
        for by, gradient in [("x", rows.gradient), *(("the rate", g) for g in rows.by_rates)]:
            if not np.all(np.isfinite(gradient)):
                return f"at a traced rate of {rate:g} the gradient by {by} has a NaN or an infinity"
    return ""


def _does_not_retrace_when_rate_strength_or_key_change(trial: Trial) -> str:
    traces = []

    @jax.jit
    def run(scheme: Scheme, strength: Array, keys: Keys, x: Array, previous: Array) -> Array:
        traces.append(None)
        return trial.through(sampled(scheme.scaled(strength), keys), x, previous)

    for i, (rate, strength) in enumerate([(0.1, 1.0), (0.5, 1.0), (0.5, 0.5)]):
        # Traced as a call is, by the cache of `run`, but not compiled.
        jax.eval_shape(run, trial.at_rate(rate), strength, trial.keys(i), trial.x, trial.previous)
    if len(traces) == 1:
        return ""
    return f"three calls with other rates, strengths and keys were traced {len(traces)} times"


def _rates_stack_into_lanes(trial: Trial) -> str:
    together = jnp.asarray(LANES)
    stacked = trial.at_rate(together)
    axes = jax.tree.unflatten(
        jax.tree.structure(trial.scheme),
        [0 if leaf is together else None for leaf in jax.tree.leaves(stacked)],
    )

    def one(scheme: Scheme) -> Array:
        draw = sampled(scheme, trial.keys())
        return trial.through(draw, jnp.asarray(trial.x), jnp.asarray(trial.previous))

    jax.eval_shape(jax.vmap(one, in_axes=(axes,)), stacked)  # mapped over rates alone
    for rate in LANES:
        alone = trial.eager(trial.keys(), trial.at_rate(rate))
        if difference := _unlike(trial.computed[f"lane {rate}"].y[0], alone):
            return f"at rate {rate}: {difference}"
    return ""


def _noise_before_a_scan_and_applied_inside_equals_the_whole(trial: Trial) -> str:
    draw = sampled(trial.scheme, trial.keys())

    def scanned(x: Array, previous: Array) -> Array:
        noise = draw.noise(trial.site, trial.shape)

        def step(carry: int, inputs: Any) -> tuple[int, Array]:
            t, x_t, previous_t = inputs
            return carry, draw.apply(draw.at(noise, t), x_t, trial.site, previous_t)

        return jax.lax.scan(step, 0, (jnp.arange(len(x)), x, previous))[1]

    rows = run_compiled(scanned, trial.x, trial.previous)
    whole = trial.eager(trial.keys())
    return (
        "" if np.allclose(rows, whole, rtol=1e-6, atol=0) else _unlike(rows, whole) or "it differs"
    )


def _links_of_a_chain(trial: Trial) -> str:
    scheme, site, shape = trial.scheme, trial.site, trial.shape
    x, previous, chain = jnp.ones(shape), jnp.zeros(shape), Chain((scheme, scheme))

    def noise(number: int) -> Any:
        return sampled(chain, trial.keys(number)).noise(site, shape)

    first, _ = noise(0)
    alone = sampled(scheme, trial.keys())(x, site, previous)
    if not same_bits(scheme.apply(first, x, site, previous), alone):
        return "the first link draws another noise than alone"
    for one, two in map(noise, range(8)):
        leaves = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
        if any(not same_bits(a, b) for a, b in leaves):
            return ""
    return "a second, equal link draws the noise of the first"


def _a_linear_site_takes_one_link(trial: Trial) -> str:
    draw = sampled(Chain((trial.scheme, trial.scheme)), trial.keys())
    try:
        draw.linear(jnp.ones(trial.shape[:1]), jnp.asarray(trial.x), None, trial.site)
    except ValueError as error:
        return "" if "takes one" in str(error) else f"it is refused with {error}"
    return "two links were taken"


def _forks_are_independent_of_each_other(trial: Trial) -> str:
    rows = trial.computed["forks"].y
    if not any(not same_bits(rows[0], row) for row in rows[1:]):
        return "eight forks of a draw are the same"
    draw = sampled(trial.scheme, trial.keys()).fork(1)
    again = trial.through(draw, jnp.asarray(trial.x), jnp.asarray(trial.previous))
    return _unlike(rows[1], np.asarray(again))


def _mean_is_expected_at_every_rate(trial: Trial) -> str:
    draws, evaluated = trial.at_rates
    for rate, ours, wanted in zip(RATES, draws, evaluated, strict=False):
        if not (np.isfinite(ours).all() and np.isfinite(wanted).all()):
            return f"at rate {rate:g} there is a NaN or an infinity"
        if trial.scheme.expected_is_mean:
            breach = _mean_broken(trial, ours, wanted, None)
        else:
            breach = "" if rate == 1 or np.all(wanted == 1) else "`expected` is not x"
        if breach:
            return f"at rate {rate:g} {breach}"
    return ""


def _same_size(trial: Trial) -> bool:
    return not trial.scheme.resizes


def _resizing(trial: Trial) -> bool:
    return trial.scheme.resizes


def _sampling(trial: Trial) -> bool:
    return trial.samples


def _rated(trial: Trial) -> bool:
    return trial.rated


def _linear_site(trial: Trial) -> bool:
    return trial.site.kind is Kind.LINEAR


_SHAPES_FIT = Law(
    "The result has the shape and dtype of the value, in float32, bfloat16 and float16.",
    "Let `sample` make noise that broadcasts to any shape, also with size 1 along an axis, and "
    "cast back to x.dtype at the end of `apply` and `expected`.",
    _keeps_shape_and_dtype,
    _same_size,
)
_ONE_TRACE = Law(
    "One compiled program serves all rates, strengths and keys.",
    "Compute nothing from a rate when the scheme is made, and keep it in a field of type Rate.",
    _does_not_retrace_when_rate_strength_or_key_change,
)

SITE_LAWS: tuple[Law[Trial], ...] = (
    _SHAPES_FIT,
    _ONE_TRACE,
    Law(
        "It leaves out some rows of the value, at random, and changes nothing else.",
        "Set `resizes` only for a scheme that takes rows of x; at evaluation all stay.",
        _leaves_out_rows_and_nothing_else,
        _resizing,
    ),
    Law(
        "Noise broadcasts to the value, and `noise_shape` tells its shape.",
        "Give noise size 1 along an axis that it is shared over, and else the value's size.",
        _noise_broadcasts_against_the_value,
        lambda trial: trial.samples and not trial.scheme.resizes,
    ),
    Law(
        "Noise can be looked at: as arrays of booleans, float32 or int32, of the shapes it has.",
        "Return arrays of these dtypes, a Mask or a Normal.",
        _noise_can_be_looked_at,
        _sampling,
    ),
    Law(
        "Examples of a step have noise of their own, unless the scheme says that they share it.",
        "Draw from keys.example; from keys.step only what all examples are to share. If they are "
        "meant to share it, check it with --shared.",
        _examples_share_their_noise_only_where_they_may,
        lambda trial: trial.samples and trial.shared is not None,
    ),
    Law(
        "At rate 0, and at strength 0, nothing happens, to the bit.",
        "Look at what `apply` and `expected` make of x when nothing is dropped.",
        _nothing_happens_at_rate_or_strength_0,
        _rated,
    ),
    Law(
        "At its rate something happens.",
        "Use the noise in `apply`, and the rate in `sample`.",
        _something_happens_at_its_rate,
        _same_size,
    ),
    Law(
        "The mean over noise is what `expected` returns.",
        "Divide by 1 - rate what is kept, or define `expected`. If evaluation is to take x though "
        "it is not the mean, set expected_is_mean: ClassVar = False.",
        _mean_over_noise_is_expected,
        _same_size,
    ),
    Law(
        "The mean of a dense layer over noise is what `expected_linear` returns.",
        "Define `expected_linear` for a `linear` of your own.",
        _mean_of_a_linear_layer_is_expected,
        _linear_site,
    ),
    Law(
        "The gradient is the factor that x was multiplied by: exactly 0 where x was dropped.",
        "Use jnp.where and products in `apply`. If it is not linear in x for given noise, set "
        "linear_in_x: ClassVar = False.",
        _gradient_is_the_factor_that_x_was_multiplied_by,
        lambda trial: trial.scheme.linear_in_x and not trial.scheme.resizes,
    ),
    Law(
        "The derivative is the slope, for given noise.",
        "Look for what stops the gradient in `apply`.",
        _gradient_is_the_slope_for_given_noise,
        lambda trial: not trial.scheme.linear_in_x,
    ),
    Law(
        "The same key gives the same result, another key another.",
        "Draw all that is random from `keys`, with jax.random or dropjax.keep_mask.",
        _same_key_same_output_and_other_key_other_output,
    ),
    Law(
        "Compiled, the result is what it is operation by operation.",
        "Let no Python branch look at the values of arrays or rates.",
        _jit_equals_eager,
    ),
    Law(
        "Mapped over the examples of a batch, the results are those of a loop.",
        "Speak of one example: count axes by site.axes, and draw from keys.example.",
        _vmap_equals_loop,
    ),
    Law(
        "Gradients are finite at traced rates of 0, 0.5 and 1.",
        "At rate 1 divide by jnp.where(rate < 1, 1 - rate, 1), and not by 0.",
        _gradients_are_finite_at_a_traced_rate_of_1,
        _rated,
    ),
    Law(
        "Rates stack into lanes: mapped over rates, the results are those of each alone.",
        "Let no Python branch look at a rate.",
        _rates_stack_into_lanes,
        _rated,
    ),
    Law(
        "Noise drawn before a scan and applied step by step inside is that of the whole sequence.",
        "Give noise one row for each step along its first axis, or size 1 there.",
        _noise_before_a_scan_and_applied_inside_equals_the_whole,
        lambda trial: trial.site.axes[0] == "time" and not trial.scheme.resizes,
    ),
    Law(
        "The first link of a chain draws what it draws alone; an equal second one draws another.",
        "Draw all that is random from `keys`.",
        _links_of_a_chain,
        _sampling,
    ),
    Law(
        "Two links on one dense layer are refused.",
        "Leave `linear` to the draw.",
        _a_linear_site_takes_one_link,
        _linear_site,
    ),
    Law(
        "Forks of a draw are independent of each other.",
        "Draw all that is random from `keys`.",
        _forks_are_independent_of_each_other,
    ),
)

EDGE_LAWS: tuple[Law[Trial], ...] = (
    Law(
        "The result has the shape of the value, also where that has size 1 along an axis.",
        "Look at what becomes of an axis of size 1: a half of 1, in whole numbers, is 0.",
        _keeps_shape,
        _same_size,
    ),
    Law(
        "At rates from 0 to 1 the result is finite, and its mean is what `expected` returns.",
        "Look at what is done along an axis of size 1, and at rate 1, where nothing is kept and "
        "`expected` is 0 too.",
        _mean_is_expected_at_every_rate,
        _same_size,
    ),
)


class Verdict(NamedTuple):
    """Of one law for one scheme.

    Args:
      where: at which kind of site, and with which shape; "" for the scheme as such.
      law: which.
      breach: how it is broken; "" if it holds.
    """

    where: str
    law: Law[Any]
    breach: str


def is_shared(scheme: Scheme, site: Site) -> bool | None:
    """Whether examples of a step are to share noise, as far as the scheme tells; None: they may."""
    mode = getattr(scheme, "mode", None)
    if mode in ("batch", "example"):
        return mode == "batch"
    return None if KINDS[site.kind].weights else False


def check(scheme: Scheme, *, shared: bool = False) -> Iterator[Verdict]:
    """Tries each law on a scheme, at a site of every kind that it can act on.

    After a law that fails because of an error or of a wrong shape no other is tried there.

    Args:
      scheme: one, no chain. Its `at` is not looked at.
      shared: whether all examples of a step are meant to have the same noise.

    Yields:
      A verdict for each law.

    Cost: some seconds for each kind of site, nearly all of it compilation.
    """
    scheme = dataclasses.replace(scheme, at="")
    for law in SCHEME_LAWS:
        verdict = _verdict("", law, scheme)
        yield verdict
        if verdict.breach and law.breach is _is_a_hashable_value_and_a_pytree_of_numbers:
            return
    for kind in sorted(scheme.acts_on | scheme.can_act_on, key=lambda kind: kind.value):
        yield from _verdicts_at(scheme, site_of(kind), shared)


def _verdicts_at(scheme: Scheme, site: Site, shared: bool) -> Iterator[Verdict]:
    where = f"at {site.kind.name} sites"
    try:
        trial = Trial.of(scheme, site, shared=True if shared else is_shared(scheme, site))
        edges = trial.edges
    except Exception as error:
        yield Verdict(where, _SHAPES_FIT, _said(error))
        return
    trials = [(where, trial, SITE_LAWS)]
    trials += [(f"{where}, of shape {edge.shape}", edge, EDGE_LAWS) for edge in edges]
    for where, tried, laws in trials:
        for law in laws:
            if law.applies(tried):
                verdict = _verdict(where, law, tried)
                yield verdict
                if verdict.breach and law in (_SHAPES_FIT, _ONE_TRACE):
                    return  # hardly another law could be tried
                if verdict.breach and (law is laws[0] or verdict.breach.startswith(_RAISES)):
                    break


def _verdict(where: str, law: Law[T], tried: T) -> Verdict:
    try:
        return Verdict(where, law, law.breach(tried))
    except Exception as error:
        return Verdict(where, law, _said(error))


_RAISES = "it raises "


def _said(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{_RAISES}{type(error).__name__}" + f": {first}" * bool(first)
