"""The recurrent network against Flax, and its noise against a loop over time in NumPy."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.special import expit as sigmoid

from dropjax import sampled
from dropjax.core.draw import CLEAN, deterministic
from dropjax.core.plan import record
from dropjax.core.site import Kind, Site
from dropjax.models.rnn import RNN
from dropjax.nn.recurrent import CELLS
from dropjax.schemes import parse
from tests.compiled import compiled, keep_of, outputs_of
from tests.nn.test_recurrent import FLAX, random_params, to_flax

STEPS, FEATURES, WIDTH, OUTPUTS = 5, 3, 4, 2
KEY = jax.random.key(3)
X = np.random.default_rng(2).normal(size=(STEPS, FEATURES)).astype(np.float32)


def params_of(cell, layers=1):
    """Random parameters, every entry in use."""
    rng = np.random.default_rng(3)
    params = {
        f"layer_{i}": random_params(cell, WIDTH if i else FEATURES, WIDTH) for i in range(layers)
    }
    head = {"kernel": rng.normal(size=(WIDTH, OUTPUTS)), "bias": rng.normal(size=OUTPUTS)}
    return params | {"head": {name: p.astype(np.float32) for name, p in head.items()}}


def apply(cell, draw, layers=1, gates="tied"):
    model = RNN(OUTPUTS, cell=cell, width=WIDTH, layers=layers, gates=gates)
    return outputs_of(model, {"params": params_of(cell, layers)}, X, draw)


def step(cell, a, u, state):
    """New states from the parts of the pre-activations that come from the input and from h."""
    if cell == "elman":
        return (np.tanh(a + u),)
    if cell == "gru":
        (a_r, a_z, a_n), (u_r, u_z, u_n) = np.split(a, 3), np.split(u, 3)
        z = sigmoid(a_z + u_z)
        return ((1 - z) * np.tanh(a_n + sigmoid(a_r + u_r) * u_n) + z * state[0],)
    i, f, g, o = np.split(a + u, 4)
    c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def product(value, kernel):
    """With a kernel; of a value of each gate, each meets the columns of its own gate."""
    if value.ndim == 1:
        return value @ kernel
    parts = np.split(kernel, len(value), axis=-1)
    return np.concatenate([v @ part for v, part in zip(value, parts, strict=True)])


def nothing(i, t, value, *previous):
    return value


def by_hand(cell, *, layers=1, params=None, x=X, recurrent=nothing, state=nothing, output=nothing):
    """The network as a loop over time.

    `recurrent(layer, t, h)` is what enters the gates in place of the hidden state, and
    `state(layer, t, new, old)` the states in place of the cell's.
    """
    params, x = params or params_of(cell, layers), np.asarray(x, np.float64)
    for i in range(layers):
        p = params[f"layer_{i}"]
        states = tuple(np.zeros(WIDTH) for _ in CELLS[cell].states)
        outputs = []
        for t in range(STEPS):
            a = product(x[t], p["kernel"]) + p["bias"]
            u = product(recurrent(i, t, states[0]), p["recurrent_kernel"])
            u = u + p.get("recurrent_bias", 0)
            states = state(i, t, step(cell, a, u, states), states)
            outputs.append(states[0])
        x = np.stack([output(i, t, h) for t, h in enumerate(outputs)])
    return x[-1] @ params["head"]["kernel"] + params["head"]["bias"]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def noise_at(draw, scope, name, kind, shape, axes=("time", "feature")):
    """The one link's noise at a site, as the model will be given it."""
    (noise,) = draw.scope(scope).noise(Site(name, kind, axes), shape)
    return keep_of(noise)


@pytest.mark.parametrize("cell", CELLS)
def test_without_noise_it_is_the_network_of_flax(cell):
    layers = 2
    params, x = params_of(cell, layers), X

    @compiled
    def of_flax(params, x):
        for i in range(layers):
            theirs = {"params": {"cell": params[i]}}
            x = nn.RNN(FLAX[cell](WIDTH)).apply(theirs, x)
        return nn.Dense(OUTPUTS).apply({"params": params[-1]}, x[-1])

    with jax.numpy_rank_promotion("allow"):
        theirs = [to_flax(cell, params[f"layer_{i}"]) for i in range(layers)]
        logits = of_flax([*theirs, params["head"]], x)
    assert_close(apply(cell, CLEAN, layers), logits)
    assert_close(by_hand(cell, layers=layers), logits)  # the loop below stands on the same ground


@pytest.mark.parametrize("cell", CELLS)
def test_variational_dropout_is_the_loop_with_one_mask_a_sequence(cell):
    draw, layers, q = sampled(parse("variational(rate=0.4)"), KEY), 2, 0.6
    (of_input,) = draw.noise(Site("input", Kind.INPUT, ("time", "feature")), X.shape)
    of_input = keep_of(of_input)
    of_h, of_output = [], []
    for i in range(layers):
        shape, axes = ((STEPS, WIDTH), ("time", "feature"))
        of_h.append(noise_at(draw, f"layer_{i}", "recurrent", Kind.RECURRENT, shape))
        if i == layers - 1:  # of the last layer, only the last output is read
            shape, axes = (WIDTH,), ("feature",)
        noise = noise_at(draw, f"layer_{i}", "output", Kind.HIDDEN, shape, axes)
        of_output.append(noise.reshape(WIDTH))
    masks = [of_input, *of_h]
    assert [m.shape for m in masks] == [(1, FEATURES), (1, WIDTH), (1, WIDTH)]
    assert 0 < np.concatenate([np.ravel(m) for m in (*masks, *of_output)]).mean() < 1

    logits = by_hand(
        cell,
        layers=layers,
        x=X * of_input / q,
        recurrent=lambda i, t, h: h * of_h[i][0] / q,
        output=lambda i, t, h: h * of_output[i] / q,
    )
    assert_close(apply(cell, draw, layers), logits)
    assert not np.allclose(logits, by_hand(cell, layers=layers), atol=0.01)


@pytest.mark.parametrize("cell", CELLS)
def test_zoneout_is_the_loop_with_a_mask_a_step(cell):
    """Krueger et al. 2017: h_t = d_h h_tm1 + (1 - d_h) o_t tanh(f_t c_tm1 + i_t g_t).

    The hidden state is computed from the cell that the LSTM proposes, before its own zoneout.
    """
    draw = sampled(parse("zoneout(rate=0.4)"), KEY)
    names = CELLS[cell].states
    new = [noise_at(draw, "layer_0", name, Kind.STATE, (STEPS, WIDTH)) for name in names]
    for mask in new:
        assert mask.shape == (STEPS, WIDTH)
        assert (mask != mask[:1]).any()
    logits = by_hand(
        cell,
        state=lambda i, t, proposed, old: tuple(
            np.where(mask[t], a, b) for mask, a, b in zip(new, proposed, old, strict=True)
        ),
    )
    assert_close(apply(cell, draw), logits)
    assert not np.allclose(logits, by_hand(cell), atol=0.01)


def test_gradients_under_zoneout_are_those_of_the_loop():
    """By central differences: each step's backward pass has that step's mask, not one for all."""
    draw, params = sampled(parse("zoneout(rate=0.4)"), KEY), params_of("lstm")
    masks = [
        noise_at(draw, "layer_0", name, Kind.STATE, (STEPS, WIDTH)) for name in ("state", "cell")
    ]
    model, weights = RNN(OUTPUTS, cell="lstm", width=WIDTH), np.float32([1, -2])

    def loss(params):
        return (model.apply({"params": params}, X, draw) * weights).sum()

    def state(i, t, proposed, old):
        return tuple(
            np.where(mask[t], a, b) for mask, a, b in zip(masks, proposed, old, strict=True)
        )

    gradients, step = compiled(jax.grad(loss))(params), 1e-5
    params = jax.tree.map(np.float64, params)
    for found, leaf in zip(*map(jax.tree.leaves, (gradients, params)), strict=True):
        slopes = np.zeros_like(leaf)
        for i in np.ndindex(leaf.shape):
            for sign in (1, -1):
                leaf[i] += sign * step
                slopes[i] += sign * by_hand("lstm", params=params, state=state) @ weights
                leaf[i] -= sign * step
        assert_close(found, slopes / (2 * step))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_expectation_of_zoneout_mixes_both_states(cell):
    def state(i, t, proposed, old):
        return tuple(0.3 * b + 0.7 * a for a, b in zip(proposed, old, strict=True))

    draw = deterministic(parse("zoneout(rate=0.3)"))
    assert_close(apply(cell, draw), by_hand(cell, state=state))


@pytest.mark.parametrize("scheme", ["variational", "bernoulli", "dropconnect"])
def test_the_expectation_of_scaled_schemes_is_the_clean_network(scheme):
    assert_close(apply("lstm", deterministic(parse(scheme))), by_hand("lstm"))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_dropconnect_is_the_loop_with_masked_kernels(cell):
    draw, q = sampled(parse("dropconnect(rate=0.4)"), KEY), 0.6
    params = params_of(cell)
    weight = ("input", "output")
    for scope, name, kind, param in [
        ("layer_0", "linear", Kind.LINEAR, "kernel"),
        ("layer_0", "recurrent_kernel", Kind.WEIGHT, "recurrent_kernel"),
        ("head", "linear", Kind.LINEAR, "kernel"),
    ]:
        w = params[scope][param]
        params[scope][param] = w * noise_at(draw, scope, name, kind, w.shape, weight) / q
    assert_close(apply(cell, draw), by_hand(cell, params=params))


@pytest.mark.parametrize("cell", ["elman", "gru"])
def test_bernoulli_by_name_masks_each_step_anew(cell):
    draw = sampled(parse('bernoulli(rate=0.4,at="recurrent$")'), KEY)
    keep = noise_at(draw, "layer_0", "recurrent", Kind.RECURRENT, (STEPS, WIDTH))
    assert (keep != keep[:1]).any()
    logits = by_hand(cell, recurrent=lambda i, t, h: h * keep[t] / 0.6)
    assert_close(apply(cell, draw), logits)


@pytest.mark.parametrize("cell", CELLS)
def test_sites(cell):
    model = RNN(OUTPUTS, cell=cell, width=WIDTH, layers=2)
    sites = record(lambda draw: model.init(KEY, X, draw))
    gates, sequence, weight = CELLS[cell].gates, ("time", "feature"), ("input", "output")
    found = {name: (s.kind, s.axes, shape, round(s.depth, 3)) for name, (s, shape) in sites.items()}
    wanted = {"input": (Kind.INPUT, sequence, (STEPS, FEATURES), 0)}
    for i, (inputs, depth) in enumerate([(FEATURES, 0.333), (WIDTH, 0.667)]):
        states = ("state", "cell") if cell == "lstm" else ("state",)
        h = (STEPS, WIDTH)
        wanted |= {
            f"layer_{i}/linear": (Kind.LINEAR, weight, (inputs, gates * WIDTH), depth),
            f"layer_{i}/recurrent_kernel": (Kind.WEIGHT, weight, (WIDTH, gates * WIDTH), depth),
            f"layer_{i}/recurrent": (Kind.RECURRENT, sequence, h, depth),
            **({} if cell == "elman" else {f"layer_{i}/update": (Kind.UPDATE, sequence, h, depth)}),
            **(
                {f"layer_{i}/readout": (Kind.READOUT, sequence, h, depth)} if cell == "lstm" else {}
            ),
            **{f"layer_{i}/{name}": (Kind.STATE, sequence, h, depth) for name in states},
        }
        out = (
            (Kind.HIDDEN, sequence, h, depth)
            if i == 0
            else (Kind.HIDDEN, ("feature",), h[1:], depth)
        )
        wanted[f"layer_{i}/output"] = out
    wanted["head/linear"] = (Kind.LINEAR, weight, (WIDTH, OUTPUTS), 1)
    assert found == wanted
    assert list(found) == list(wanted)  # in the order that the model meets them


DENSE = RNN(OUTPUTS, cell="elman", width=WIDTH, dense=(6, 3))


def dense_params():
    rng, params = np.random.default_rng(8), params_of("elman")
    for name, shape in {"dense_0": (WIDTH, 6), "dense_1": (6, 3), "head": (3, OUTPUTS)}.items():
        sizes = {"kernel": shape, "bias": shape[1:]}
        params[name] = {n: rng.normal(size=size).astype(np.float32) for n, size in sizes.items()}
    return params


def test_dense_layers_stand_between_the_last_output_and_the_head():
    """Each with ReLU and noise of its own, which schemes find by name."""
    draw = sampled(parse('bernoulli(rate=0.5,at="dense_.*/hidden")'), KEY)
    params = dense_params()
    # What leaves the recurrent layer, by a head that is the identity.
    head = {"kernel": np.eye(WIDTH), "bias": np.zeros(WIDTH)}
    h = by_hand("elman", params=params | {"head": head})
    for k, width in enumerate(DENSE.dense):
        p = params[f"dense_{k}"]
        keep = noise_at(draw, f"dense_{k}", "hidden", Kind.HIDDEN, (width,), ("feature",))
        h = np.maximum(h @ p["kernel"] + p["bias"], 0) * keep / 0.5
    wanted = h @ params["head"]["kernel"] + params["head"]["bias"]
    found = outputs_of(DENSE, {"params": params}, X, draw)
    assert_close(found, wanted)


def test_sites_of_dense_layers():
    sites = record(lambda draw: DENSE.init(KEY, X, draw))
    found = [(name, s.kind, shape, s.depth) for name, (s, shape) in sites.items()]
    assert found[-5:] == [
        ("dense_0/linear", Kind.LINEAR, (WIDTH, 6), 0.5),
        ("dense_0/hidden", Kind.HIDDEN, (6,), 0.5),
        ("dense_1/linear", Kind.LINEAR, (6, 3), 0.75),
        ("dense_1/hidden", Kind.HIDDEN, (3,), 0.75),
        ("head/linear", Kind.LINEAR, (3, OUTPUTS), 1),
    ]
    assert sites["layer_0/output"][0].depth == 0.25


def test_a_sequence_without_a_row_is_refused():
    of = jax.ShapeDtypeStruct((0, FEATURES), np.float32)
    with pytest.raises(ValueError, match=r"at least one row, got the shape \(0, 3\)"):
        jax.eval_shape(lambda x: RNN(OUTPUTS, width=WIDTH).init(KEY, x, CLEAN), of)


def test_rows_of_an_image_with_channels_are_flattened():
    model, image = RNN(OUTPUTS, width=WIDTH), X.reshape(STEPS, 1, FEATURES)
    params = {"params": params_of("lstm")}
    flat, of_image = (outputs_of(model, params, x, CLEAN) for x in (X, image))
    np.testing.assert_array_equal(of_image, flat)
    with pytest.raises(ValueError, match="2 or more axes"):
        model.apply(params, X[0], CLEAN)


# Masks of each gate: the untied form of Gal & Ghahramani 2016, section 4.

GATED = ("time", "gate", "feature")


@pytest.mark.parametrize("cell, scheme", [("lstm", "variational"), ("gru", "bernoulli")])
def test_untied_each_gate_sees_masks_of_its_own(cell, scheme):
    where = 'at="input|recurrent$|output"' if scheme == "bernoulli" else 'at=""'
    draw, q, layers = sampled(parse(f"{scheme}(rate=0.4,{where})"), KEY), 0.6, 2
    gates, full = CELLS[cell].gates, []
    (of_x,) = draw.noise(Site("input", Kind.INPUT, GATED), (STEPS, gates, FEATURES))
    masks = {"x": np.asarray(of_x.keep())}
    wide = (STEPS, gates, WIDTH)
    for i in range(layers):
        masks[f"h{i}"] = noise_at(draw, f"layer_{i}", "recurrent", Kind.RECURRENT, wide, GATED)
    masks["y0"] = noise_at(draw, "layer_0", "output", Kind.HIDDEN, wide, GATED)
    last = noise_at(draw, "layer_1", "output", Kind.HIDDEN, (WIDTH,), ("feature",)) / q
    for mask in masks.values():
        assert mask.shape[:2] == (1 if scheme == "variational" else STEPS, gates)
        assert (mask != mask[:, :1]).any()
        full.append(np.broadcast_to(mask / q, (STEPS, *mask.shape[1:])))
    of_x, h0, h1, y0 = full
    wanted = by_hand(
        cell,
        layers=layers,
        x=X[:, None] * of_x,
        recurrent=lambda i, t, h: h * (h0, h1)[i][t],
        output=lambda i, t, h: h * (y0[t], last)[i],
    )
    assert_close(apply(cell, draw, layers, "untied"), wanted)
    assert not np.allclose(wanted, by_hand(cell, layers=layers), atol=0.01)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_untied_without_noise_on_the_gates_is_tied(cell):
    assert_close(apply(cell, CLEAN, gates="untied"), by_hand(cell))
    draw = sampled(parse("zoneout|dropconnect"), KEY)
    assert_close(apply(cell, draw, gates="untied"), apply(cell, draw))


def test_untied_sites_have_an_axis_of_gates():
    model = RNN(OUTPUTS, "gru", WIDTH, 2, "untied")
    sites = record(lambda draw: model.init(KEY, X, draw))
    found = {name: shape for name, (site, shape) in sites.items() if "gate" in site.axes}
    wide = (STEPS, 3, WIDTH)
    assert found == {
        "input": (STEPS, 3, FEATURES),
        "layer_0/recurrent": wide,
        "layer_0/output": wide,
        "layer_1/recurrent": wide,
    }
    assert all(site.axes == GATED for site, _ in sites.values() if "gate" in site.axes)
    tied, of_untied = (
        jax.eval_shape(lambda m=m: m.init(KEY, X, CLEAN))
        for m in (RNN(OUTPUTS, "gru", WIDTH, 2), model)
    )
    assert tied == of_untied  # so the weights of one serve the other
