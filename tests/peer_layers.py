"""Rows of COMING_FROM.md about attention and recurrent networks: whole layers of the peers."""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import numpy as np

from dropjax import CLEAN, Kind, Site, models, sampled, schemes
from dropjax.nn.recurrent import lstm
from dropjax.ops.bernoulli import drop
from tests.peers import (
    DRAWS,
    IMAGES,
    KEEP,
    KEYS,
    PEER_DRAWS,
    RATE,
    TEXT,
    Dropped,
    Row,
    assert_dropout,
    close,
    draws,
    imported,
    installed,
    lenient,
    normal,
    of_keras,
    run,
    shared,
)
from tests.statistics import assert_mean

# Attention. N examples, heads, queries and keys: as many as IMAGES.


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attended(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, dropped: Callable[[np.ndarray], Any] = lambda w: w
) -> np.ndarray:
    """Attention of heads (..., T, F), with something done to its weights."""
    return np.asarray(dropped(softmax(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])))) @ v


def attention_of_torch(row: Row) -> None:
    """Both of PyTorch's; values that are the identity show its weights as they are dropped."""
    case = Dropped(IMAGES, IMAGES)
    case(row)
    if not installed("torch"):
        return
    torch = imported("torch")

    def attend(q, k, v, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        tensors = (torch.from_numpy(a) for a in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(*tensors, dropout_p=RATE).numpy()

    q, k, v = normal(2, 3, 4, 6), 2 * normal(2, 3, 5, 6), normal(2, 3, 5, 7)
    identity = np.tile(np.eye(5, dtype=np.float32), (2, 3, 1, 1))
    theirs = np.stack([attend(q, k, identity, seed) for seed in range(PEER_DRAWS)])
    case.check((theirs != 0) / np.float32(KEEP), theirs, attended(q, k, identity))
    for seed in range(3):
        mask = jnp.asarray(theirs[seed] != 0)
        wanted = attended(q, k, v, lambda w, mask=mask: drop(mask, jnp.asarray(w), RATE))
        close(attend(q, k, v, seed), wanted)

    layer = torch.nn.MultiheadAttention(6, 3, dropout=RATE, batch_first=True)
    tensors = [torch.from_numpy(x) for x in (normal(2, 4, 6), normal(2, 5, 6), normal(2, 5, 6))]

    def weights(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        return layer(*tensors, average_attn_weights=False)[1].detach().numpy()

    theirs = np.stack([weights(seed) for seed in range(PEER_DRAWS)])
    layer.eval()
    case.check((theirs != 0) / np.float32(KEEP), theirs, weights(0))


def layer_of_heads(kernels: list[Any], x: np.ndarray, y: np.ndarray, dropped: Any) -> np.ndarray:
    """Attention of x to y with the kernels of query, key, value (features, heads, width), out."""
    *of_inputs, out = (np.asarray(kernel) for kernel in kernels)
    heads = (np.einsum("ntf,fhd->nhtd", a, w) for a, w in zip((x, y, y), of_inputs, strict=True))
    return np.einsum("nhtd,hdf->ntf", attended(*heads, dropped), out)


def attention_of_flax(row: Row, drawn: tuple[int, ...], **options: Any) -> None:
    """Whole layers, of which our second code has the mask for the same key."""
    Dropped(IMAGES, drawn)(row)
    same = row._replace(here=row.here[1:])
    x, y = normal(2, 4, 6), normal(2, 5, 6)[..., ::-1]
    layer = flax.linen.MultiHeadDotProductAttention(3, dropout_rate=RATE, **options)
    params = jax.jit(functools.partial(layer.init, deterministic=True))(KEYS[0], x, y)
    kernels = [params["params"][name]["kernel"] for name in ("query", "key", "value", "out")]
    nnx_layer = flax.nnx.MultiHeadAttention(
        3, 6, dropout_rate=RATE, rngs=flax.nnx.Rngs(0), decode=False, **options
    )
    nnx_kernels = [
        getattr(nnx_layer, name).kernel[...] for name in ("query", "key", "value", "out")
    ]

    @jax.jit
    def of_linen(key: jax.Array) -> jax.Array:
        return layer.apply(params, x, y, deterministic=False, dropout_rng=key)

    @flax.nnx.jit
    def of_nnx(layer: Any, rngs: Any) -> jax.Array:
        return layer(x, y, deterministic=False, rngs=rngs)

    for seed in range(3):
        key = flax.nnx.Rngs(seed)()  # the first that this gives
        dropped = lambda w, key=key: run(same, key, jnp.asarray(w))  # noqa: E731
        close(of_linen(key), layer_of_heads(kernels, x, y, dropped))
        theirs = of_nnx(nnx_layer, flax.nnx.Rngs(seed))
        close(theirs, layer_of_heads(nnx_kernels, x, y, dropped))


def attention_fn_of_flax(row: Row) -> None:
    """The text's function inside of Flax's layers, with the row's code on the weights."""
    (block,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    names: dict[str, Any] = {}

    def example() -> jax.Array:
        """The text's code, and the same for nnx; traced, which is enough to see that it runs."""
        exec(block, names)
        layer = flax.nnx.MultiHeadAttention(
            4,
            8,
            dropout_rate=RATE,
            rngs=flax.nnx.Rngs(0),
            decode=False,
            attention_fn=names["attend"],
        )
        return names["y"] + layer(names["x"], deterministic=False, rngs=flax.nnx.Rngs(1))

    with lenient():
        assert jax.eval_shape(example).shape == (2, 5, 8)
    q, k, v = normal(2, 4, 3, 6), 2 * normal(2, 5, 3, 6), normal(2, 5, 3, 7)
    heads = [part.swapaxes(1, 2) for part in (q, k, v)]
    attend = jax.jit(functools.partial(names["attend"], dropout_rate=RATE))
    for key in (KEYS[0], None):
        dropped = lambda w, key=key: w if key is None else run(row, key, jnp.asarray(w))  # noqa: E731
        wanted = attended(*heads, dropped).swapaxes(1, 2)
        close(attend(q, k, v, dropout_rng=key), wanted)


def attention_of_keras(row: Row) -> None:
    """A whole layer; its mask is that of a `Dropout` with the same seed."""
    Dropped(IMAGES, IMAGES)(row)
    if not installed("keras"):
        return
    x, y = normal(2, 4, 6), normal(2, 5, 6)[..., ::-1]
    for seed in range(3):
        mask = jnp.asarray(of_keras("Dropout")(np.ones(IMAGES, np.float32), seed) != 0)
        with lenient():
            layer = imported("keras").layers.MultiHeadAttention(3, 2, dropout=RATE, seed=seed)
            theirs = np.asarray(layer(x, y, training=True))
        kernels = [w.value for w in layer.weights if w.name == "kernel"]
        dropped = lambda w, mask=mask: drop(mask, jnp.asarray(w), RATE)  # noqa: E731
        close(theirs, layer_of_heads(kernels, x, y, dropped))


# Recurrent networks. All of one example: x (steps, features).

STEPS, FEATURES, OUTPUTS = 4, 6, 10


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def products(x: np.ndarray, masks: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    """For each gate, x under that gate's mask times that gate's block of w."""
    blocks = np.split(w, len(masks), axis=1)
    return [(x * mask) @ block for mask, block in zip(masks, blocks, strict=True)]


def keras_lstm(x, w_x, w_h, b, x_masks, h_masks) -> np.ndarray:
    """Keras's LSTM, written out: gates i, f, c, o; masks already scaled. The last output."""
    h = c = np.zeros(len(w_h), np.float32)
    for x_t in x:
        parts = zip(
            products(x_t, x_masks, w_x), products(h, h_masks, w_h), np.split(b, 4), strict=True
        )
        i, f, g, o = (a + u + bias for a, u, bias in parts)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def keras_gru(x, w_x, w_h, b, x_masks, h_masks) -> np.ndarray:
    """Keras's GRU, written out: gates z, r, h; two biases; the reset gate after the product."""
    h = np.zeros(len(w_h), np.float32)
    for x_t in x:
        b_x, b_h = np.split(b[0], 3), np.split(b[1], 3)
        a = [p + q for p, q in zip(products(x_t, x_masks, w_x), b_x, strict=True)]
        u = [p + q for p, q in zip(products(h, h_masks, w_h), b_h, strict=True)]
        z, r = sigmoid(a[0] + u[0]), sigmoid(a[1] + u[1])
        h = z * h + (1 - z) * np.tanh(a[2] + r * u[2])
    return h


def keras_weights(cell: str, layer: dict[str, jax.Array]) -> list[np.ndarray]:
    """Our parameters as Keras wants them."""
    names = ["kernel", "recurrent_kernel", "bias"]
    w_x, w_h, b = (np.asarray(layer[name]) for name in names)
    if cell == "lstm":
        return [w_x, w_h, b]
    b = np.stack([b, np.asarray(layer["recurrent_bias"])])
    return [in_keras_order(cell, w, w.shape[-1] // 3) for w in (w_x, w_h, b)]


def in_keras_order(cell: str, w: np.ndarray, width: int) -> np.ndarray:
    """Blocks of the last axis: r, z, n becomes z, r, n, which Keras calls h."""
    if cell == "lstm":
        return w
    r, z, n = np.split(w, w.shape[-1] // width, axis=-1)
    return np.concatenate([z, r, n], axis=-1)


def untied(row: Row) -> None:
    """Whole models: ours under a scheme, and Keras's LSTM and GRU with our masks and weights."""
    for cell in ("lstm", "gru"):
        gates, written = {"lstm": (4, keras_lstm), "gru": (3, keras_gru)}[cell]
        text = row.here[0].replace("rnn(", f'rnn(cell="{cell}",width=8,')
        model, scheme = (
            eval(c, {"models": models, "schemes": schemes}) for c in (text, row.here[1])
        )
        x, key = normal(STEPS, FEATURES), jax.random.key(3)
        start = functools.partial(model.init, key, jnp.asarray(x), CLEAN)
        params = jax.tree.map(lambda w: jnp.asarray(0.4 * normal(*w.shape)), jax.eval_shape(start))

        def masks(key: jax.Array, x: jax.Array, scheme=scheme, gates=gates) -> list[jax.Array]:
            draw, axes = sampled(scheme, key), ("time", "gate", "feature")
            (x_noise,) = draw.noise(Site("input", Kind.INPUT, axes), (STEPS, gates, FEATURES))
            site = Site("recurrent", Kind.RECURRENT, axes)
            (h_noise,) = draw.scope("layer_0").noise(site, (STEPS, gates, 8))
            return [x_noise.keep(), h_noise.keep()]

        def logits(key: jax.Array, x: jax.Array, model=model, scheme=scheme, params=params):
            return model.apply(params, x, sampled(scheme, key))

        ((drawn,), (out,)) = draws([masks, logits], [x])
        scaled = []
        for mask, rate, size in zip(drawn, (0.2, 0.3), (FEATURES, 8), strict=True):
            assert mask.shape == (DRAWS, 1, gates, size)  # one for all steps
            assert_dropout(mask / (1 - rate), rate)
            assert_mean(mask[:, 0, 0] & mask[:, 0, 1], (1 - rate) ** 2)  # gates are independent
            mask = mask[:, 0] / np.float32(1 - rate)
            scaled.append(mask if cell == "lstm" else mask[:, [1, 0, 2]])
        layer, head = params["params"]["layer_0"], params["params"]["head"]
        weights = keras_weights(cell, layer)
        hs = [written(x, *weights, *(mask[i] for mask in scaled)) for i in range(9)]
        close(out[:9], hs @ np.asarray(head["kernel"]) + np.asarray(head["bias"]))
        if installed("keras"):
            kind, rates = cell.upper(), {"dropout": 0.2, "recurrent_dropout": 0.3}
            theirs = keras_layer(kind, weights, **rates)
            assert_own_masks(theirs, gates)
            for i in range(3):
                close(keras_run(theirs, x, *(list(mask[i]) for mask in scaled)), hs[i])
            first = keras_weights(cell, start()["params"]["layer_0"])
            fresh = keras_layer(kind, None, **rates)
            np.testing.assert_array_equal(of_layer(fresh)[2], first[2])  # unit_forget_bias
            ignoring = keras_layer(kind, weights, dropout=1.0, recurrent_dropout=1.0)
            with lenient():
                a, b = (np.asarray(ignoring(x[None], training=on)) for on in (True, False))
            np.testing.assert_array_equal(a, b)


def keras_layer(kind: str, weights: list[np.ndarray] | None, **rates: float) -> Any:
    keras = imported("keras")
    with lenient():
        layer = getattr(keras.layers, kind)(8, **rates)
        layer.build((1, STEPS, FEATURES))
        if weights is not None:
            layer.set_weights(weights)
    return layer


def of_layer(layer: Any) -> list[np.ndarray]:
    return [np.asarray(weight.value) for weight in layer.weights]


def keras_run(layer: Any, x: np.ndarray, *masks: Any) -> np.ndarray:
    """The last output of Keras's layer with masks of ours, of inputs and perhaps of states."""
    layer.cell.get_dropout_mask = lambda step: masks[0]
    layer.cell.get_recurrent_dropout_mask = lambda step: masks[-1]
    with lenient():
        return np.asarray(layer(x[None], training=True))[0]


def assert_own_masks(layer: Any, gates: int) -> None:
    """Keras draws a mask for each gate, of inputs and of states."""
    with lenient():
        ones = jnp.ones((9, 50))
        for masks, rate in (
            (layer.cell.get_dropout_mask(ones), 0.2),
            (layer.cell.get_recurrent_dropout_mask(ones), 0.3),
        ):
            masks = np.stack([np.asarray(mask) for mask in masks])
            assert len(masks) == gates and not shared(masks[None])
            assert_dropout(masks.reshape(-1), rate)
        layer.cell.reset_dropout_mask()
        layer.cell.reset_recurrent_dropout_mask()


def inputs_of_keras(row: Row) -> None:
    """Dropout of the inputs alone: one mask for all steps and gates."""
    Dropped((3, STEPS, FEATURES), (3, 1, FEATURES))(row)
    if not installed("keras"):
        return
    x = normal(3, STEPS, FEATURES)
    key = jax.random.key(5)
    dropped = np.asarray(run(row, key, jnp.asarray(x)))
    factors = np.asarray(run(row, key, jnp.ones_like(x)))[:, :1]
    for kind, gates in (("LSTM", 4), ("GRU", 3)):
        layer = keras_layer(kind, None, dropout=RATE)
        with lenient():
            mask = np.asarray(layer.cell.get_dropout_mask(jnp.ones((500, FEATURES))))
            layer.cell.reset_dropout_mask()
        assert_dropout(mask, RATE)  # one array: all gates share it
        weights = of_layer(layer)
        written = {"LSTM": keras_lstm, "GRU": keras_gru}[kind]
        plain = np.ones((gates, FEATURES)), np.ones((gates, 8))
        for i in range(3):
            y = keras_run(layer, x[i], factors[i])
            close(y, written(dropped[i], *weights, *plain))


def between_layers(row: Row) -> None:
    """PyTorch's LSTM drops what one layer hands to the next, each step on its own."""
    shape = (STEPS, 3, 8)
    Dropped(shape, shape)(row)
    if not installed("torch"):
        return
    torch = imported("torch")
    torch.manual_seed(0)
    net = torch.nn.LSTM(FEATURES, 8, 2, dropout=RATE)
    w = {name: jnp.asarray(value.detach().numpy()) for name, value in net.named_parameters()}
    x = normal(STEPS, 3, FEATURES)

    def layer(x: jax.Array, number: int) -> jax.Array:
        """Our step with PyTorch's weights, which have the same order of gates."""
        b = (w[f"bias_ih_l{number}"] + w[f"bias_hh_l{number}"])[None, None]
        from_input = x @ w[f"weight_ih_l{number}"].T + b
        state, outputs = (jnp.zeros((3, 8)), jnp.zeros((3, 8))), []
        for part in from_input:
            from_hidden = state[0] @ w[f"weight_hh_l{number}"].T
            state = lstm(part, from_hidden, state, lambda g: g, lambda c: c)
            outputs.append(state[0])
        return jnp.stack(outputs)

    def of_torch(seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The mask that a seed gives, and the network's output under that seed."""
        torch.manual_seed(seed)
        factors = torch.nn.functional.dropout(torch.ones(shape), RATE).numpy()
        torch.manual_seed(seed)
        with torch.no_grad():
            return factors, net(torch.from_numpy(x))[0].numpy()

    for seed in range(3):
        factors, y = of_torch(seed)
        hidden = drop(jnp.asarray(factors != 0), layer(jnp.asarray(x), 0), RATE)
        close(layer(hidden, 1), y)
    assert not shared(np.stack([of_torch(seed)[0] for seed in range(PEER_DRAWS)]))
