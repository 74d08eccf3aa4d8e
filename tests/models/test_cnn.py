"""The convolutional network against NumPy."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dropjax import sampled
from dropjax.core.draw import CLEAN, deterministic
from dropjax.core.plan import record
from dropjax.core.site import BATCH_AXES, Kind, Site
from dropjax.models.cnn import CNN
from dropjax.models.layers import BatchNorm
from dropjax.schemes import parse
from tests.compiled import compiled, jit, keep_of, outputs_of
from tests.nn.test_convolution import conv_by_hand, pool_by_hand, valid_by_hand

KEY = jax.random.key(5)
MAP, WEIGHT = ("height", "width", "feature"), ("input", "output")
X = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
OUTPUTS = 3
PLAIN = CNN(OUTPUTS, (3, 4), dense=(6,))
RESIDUAL = CNN(OUTPUTS, (3, 3), residual=True, pooling="average", dense=())
NORMED = CNN(OUTPUTS, (3,), dense=(), norm="batch")


def variables_of(model):
    """Random variables, every entry in use and variances positive."""
    shapes = jax.eval_shape(lambda: model.init(KEY, X, CLEAN))
    rng = np.random.default_rng(1)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            rng.uniform(0.5, 2, leaf.shape)
            if path[-1].key == "var"
            else rng.normal(size=leaf.shape)
        ).astype(np.float32),
        shapes,
    )


def relu(x):
    return np.maximum(x, 0)


def dense(p, x, factor=1):
    return x @ (p["kernel"] * factor) + p["bias"]


def conv(p, x):
    return conv_by_hand(x, p["kernel"]) + p["bias"]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


def apply(model, draw, variables=None, x=X):
    return outputs_of(model, variables or variables_of(model), x, draw)


def plain_by_hand(*, of_input=1, of_map=(1, 1), of_hidden=1):
    p, x = variables_of(PLAIN)["params"], X * of_input
    for i in range(2):
        x = pool_by_hand(relu(conv(p[f"stage_{i}_block_0"]["conv"], x)), "max") * of_map[i]
    return dense(p["head"], relu(dense(p["dense_0"], x.reshape(-1))) * of_hidden)


def residual_by_hand(of_branch=(1, 1)):
    p, x = variables_of(RESIDUAL)["params"], X
    for i in range(2):
        block = p[f"stage_{i}_block_0"]
        branch = conv(block["conv_1"], relu(conv(block["conv_0"], x)))
        shortcut = conv(block["shortcut"], x) if i == 0 else x  # 2 channels become 3
        x = pool_by_hand(relu(shortcut + branch * of_branch[i]), "average")
    return dense(p["head"], x.reshape(-1))


def noise_at(draw, scope, name, kind, axes, shape):
    (noise,) = draw.scope(scope).noise(Site(name, kind, axes), shape)
    return np.asarray(keep_of(noise))


def test_without_noise():
    for model, wanted in [(PLAIN, plain_by_hand()), (RESIDUAL, residual_by_hand())]:
        assert apply(model, CLEAN).shape == (OUTPUTS,)
        assert_close(apply(model, CLEAN), wanted)
        assert_close(apply(model, deterministic(parse("bernoulli|stochastic_depth"))), wanted)


def test_spatial_drops_maps_after_pooling_and_bernoulli_hidden_units():
    draw = sampled(parse('spatial(rate=0.4)|bernoulli(rate=0.3,at="hidden|^input$")'), KEY)
    shapes = [(2, 2, 3), (1, 1, 4)]
    maps = []
    for i, shape in enumerate(shapes):
        kept = noise_at(draw, f"stage_{i}", "map", Kind.FEATURE_MAP, MAP, shape)
        assert kept.shape == (1, 1, shape[-1])
        maps.append(kept / 0.6)
    hidden = noise_at(draw, "dense_0", "hidden", Kind.HIDDEN, ("feature",), (6,))
    (pixels,) = draw.noise(Site("input", Kind.INPUT, MAP), X.shape)
    wanted = plain_by_hand(
        of_input=np.asarray(keep_of(pixels)) / 0.7, of_map=maps, of_hidden=hidden / 0.7
    )
    assert_close(apply(PLAIN, draw), wanted)
    assert not np.allclose(wanted, plain_by_hand(), atol=0.01)


def test_stochastic_depth_drops_branches_and_leaves_shortcuts():
    variables, found = variables_of(RESIDUAL), set()
    run = jit(lambda draw: RESIDUAL.apply(variables, X, draw))
    for seed in range(6):
        draw = sampled(parse("stochastic_depth(rate=0.8)"), jax.random.key(seed))
        factors = []
        for i, (shape, depth) in enumerate([((5, 4, 3), 0.5), ((2, 2, 3), 1.0)]):
            site = Site("branch", Kind.BRANCH, MAP, depth)
            (noise,) = draw.scope(f"stage_{i}").scope("block_0").noise(site, shape)
            factors.append(float(keep_of(noise).item()) / (1 - 0.8 * depth))
        found.add(tuple(factor > 0 for factor in factors))
        assert_close(run(draw), residual_by_hand(factors))
    assert len(found) > 1


def test_sites():
    model = CNN(OUTPUTS, (3, 4), blocks=2, residual=True, dense=(6, 5))
    sites = record(lambda draw: model.init(KEY, X, draw))
    found = [(name, s.kind, s.axes, shape, round(s.depth, 3)) for name, (s, shape) in sites.items()]
    assert found == [
        ("input", Kind.INPUT, MAP, (5, 4, 2), 0),
        ("stage_0/block_0/branch", Kind.BRANCH, MAP, (5, 4, 3), 0.25),
        ("stage_0/block_1/branch", Kind.BRANCH, MAP, (5, 4, 3), 0.5),
        ("stage_0/map", Kind.FEATURE_MAP, MAP, (2, 2, 3), 0.2),
        ("stage_1/block_0/branch", Kind.BRANCH, MAP, (2, 2, 4), 0.75),
        ("stage_1/block_1/branch", Kind.BRANCH, MAP, (2, 2, 4), 1),
        ("stage_1/map", Kind.FEATURE_MAP, MAP, (1, 1, 4), 0.4),
        ("dense_0/linear", Kind.LINEAR, WEIGHT, (4, 6), 0.6),
        ("dense_0/hidden", Kind.HIDDEN, ("feature",), (6,), 0.6),
        ("dense_1/linear", Kind.LINEAR, WEIGHT, (6, 5), 0.8),
        ("dense_1/hidden", Kind.HIDDEN, ("feature",), (5,), 0.8),
        ("head/linear", Kind.LINEAR, WEIGHT, (5, 3), 1),
    ]
    plain = record(lambda draw: CNN(OUTPUTS, (3,), dense=()).init(KEY, X, draw))
    assert list(plain) == ["input", "stage_0/map", "head/linear"]


def test_how_it_starts():
    @compiled
    def first_layer():
        params = CNN(OUTPUTS, (64,), dense=()).init(KEY, X, CLEAN)["params"]
        return params["stage_0_block_0"]["conv"]

    first = first_layer()
    assert first["kernel"].shape == (3, 3, 2, 64) and (first["bias"] == 0).all()
    np.testing.assert_allclose(np.std(first["kernel"]), np.sqrt(2 / 18), rtol=0.1)  # He et al. 2015


# Batch normalisation.

XS = np.random.default_rng(2).normal(size=(6, 5, 4, 2)).astype(np.float32)


def train(draw, devices=1, weight=None):
    """Outputs, and the new running statistics of each device."""
    variables = variables_of(NORMED)

    def one(x, weight):
        of = dataclasses.replace(draw, weight=weight)
        return NORMED.apply(variables, x, of, mutable="batch_stats")

    over_batch = jax.vmap(one, out_axes=(0, None), axis_name=BATCH_AXES[0])
    over_devices = jax.vmap(over_batch, axis_name=BATCH_AXES[1])
    weight = None if weight is None else weight.reshape(devices, -1)
    outputs, new = compiled(over_devices)(XS.reshape(devices, -1, *XS.shape[1:]), weight)
    return outputs.reshape(6, OUTPUTS), new["batch_stats"]["stage_0_block_0"]["conv_norm"]["norm"]


def normed_by_hand(normalise):
    p = variables_of(NORMED)["params"]
    block = p["stage_0_block_0"]
    assert "bias" not in block["conv"]
    y = np.stack([conv_by_hand(x, block["conv"]["kernel"]) for x in XS])
    norm = block["conv_norm"]["norm"]
    mean, var = normalise(y)
    y = (y - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
    return dense(p["head"], np.stack([pool_by_hand(relu(x), "max").ravel() for x in y])), mean, var


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("real", [6, 3])
def test_in_training_statistics_are_those_of_the_global_batch(devices, real):
    """Ioffe & Szegedy 2015, section 3.2: of each channel, over examples, height and width.

    What fills a batch up is left out. Of three devices with 3 real rows the last has none.
    """

    def by_rows(y):
        return y[:real].mean((0, 1, 2)), y[:real].var((0, 1, 2))

    wanted, mean, var = normed_by_hand(by_rows)
    weight = np.float32(np.arange(6) < real) if real < 6 else None
    outputs, new = train(CLEAN, devices, weight)
    assert_close(outputs[:real], wanted[:real])
    old = variables_of(NORMED)["batch_stats"]["stage_0_block_0"]["conv_norm"]["norm"]
    for device in range(devices):
        assert_close(new["mean"][device], 0.9 * old["mean"] + 0.1 * mean)
        assert_close(new["var"][device], 0.9 * old["var"] + 0.1 * var)


def test_it_is_flax_s_batch_norm_to_the_bit():
    """Operation by operation, in training and in evaluation, without weights."""
    flax = nn.BatchNorm(momentum=0.9, axis_name=BATCH_AXES)

    def theirs(variables, x, **options):
        inside = {part: of["norm"] for part, of in variables.items()}
        return flax.apply(inside, x, use_running_average=not options, **options)

    variables = {"params": {"norm": {}}, "batch_stats": {"norm": {}}}
    for part, names in {"params": ("scale", "bias"), "batch_stats": ("mean", "var")}.items():
        variables[part]["norm"] = {name: np.ones(2, np.float32) for name in names}
    axes = [(axis, 1) for axis in BATCH_AXES]
    for options in ({}, {"mutable": ["batch_stats"]}):
        found, wanted = (
            str(jax.make_jaxpr(functools.partial(of, **options), axis_env=axes)(variables, X))
            for of in (BatchNorm().apply, theirs)
        )
        assert found == wanted


def test_running_statistics_start_at_mean_0_and_variance_1():
    statistics = compiled(lambda: NORMED.init(KEY, X, CLEAN)["batch_stats"])()
    start = statistics["stage_0_block_0"]["conv_norm"]["norm"]
    assert (start["mean"] == 0).all() and (start["var"] == 1).all()


def test_the_gradient_goes_through_the_statistics():
    """What is normalised does not change with the scale of the kernel, so nor does the loss."""
    variables, total = variables_of(NORMED), np.arange(18.0).reshape(6, 3)

    @jax.grad
    def to_scale(scale):
        def one(x):
            params = jax.tree.map(jnp.asarray, variables["params"])
            conv = params["stage_0_block_0"]["conv"]
            conv["kernel"] = conv["kernel"] * scale
            scaled = variables | {"params": params}
            return NORMED.apply(scaled, x, CLEAN, mutable="batch_stats")[0]

        over_batch = jax.vmap(one, axis_name=BATCH_AXES[0])
        outputs = jax.vmap(over_batch, axis_name=BATCH_AXES[1])(XS[None])
        return (outputs[0] * np.float32(total)).sum()

    # As in `small_run`: without optimisations, batch norm ends in NaN.
    optimised = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    assert abs(jax.jit(to_scale, compiler_options=optimised)(1.0)) < 1e-2


# What is refused.


def test_images_that_are_too_small_or_none_are_refused():
    def start(x):
        return jax.eval_shape(lambda: CNN(OUTPUTS, (3, 4), dense=()).init(KEY, x, CLEAN))

    for shape in [(3, 9, 1), (9, 3, 1), (9, 9)]:
        with pytest.raises(ValueError, match=r"2 stages .* both are at least 4\. Got .* of shape"):
            start(np.ones(shape, np.float32))
    assert start(np.ones((4, 4, 1), np.float32))


@pytest.mark.parametrize(("blocks", "kernel"), [(1, 3), (2, 5)])
def test_with_padding_valid_no_map_may_become_empty(blocks, kernel):
    """The size that the message names is the smallest that does."""
    of = CNN(OUTPUTS, (3, 4), blocks, kernel, dense=(), padding="valid")

    def last_map(size):
        sites = record(lambda draw: of.init(KEY, np.ones((size, size, 1), np.float32), draw))
        return sites["stage_1/map"][1]

    with pytest.raises(ValueError, match=r'padding="valid" .* unless both are at least (\d+)') as e:
        last_map(1)
    least = int(re.search(r"at least (\d+)", str(e.value))[1])
    assert last_map(least) == (1, 1, 4) and last_map(least + 4) == (2, 2, 4)
    with pytest.raises(ValueError, match=f"at least {least}"):
        last_map(least - 1)


def test_with_padding_valid_it_is_the_loop():
    model = CNN(OUTPUTS, (3,), dense=(), padding="valid")
    variables = variables_of(model)
    p = variables["params"]
    x = valid_by_hand(X, p["stage_0_block_0"]["conv"]["kernel"])
    x = pool_by_hand(relu(x + p["stage_0_block_0"]["conv"]["bias"]), "max")
    assert_close(apply(model, CLEAN, variables), dense(p["head"], x.reshape(-1)))
