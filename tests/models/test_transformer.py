"""The transformer against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from dropjax import sampled
from dropjax.core.draw import CLEAN, deterministic
from dropjax.core.plan import record
from dropjax.core.site import Kind, Site
from dropjax.models.transformer import Transformer
from dropjax.schemes import parse
from tests.compiled import compiled, keep_of, outputs_of

KEY = jax.random.key(4)
WIDTH, HEADS, HIDDEN, OUTPUTS, PATCH = 6, 2, 5, 3, 2
IMAGE = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
SEQUENCE = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
TOKENS = 6  # patches of the image


def model(**options):
    given = {"width": WIDTH, "heads": HEADS, "hidden": HIDDEN, "patch": PATCH, "layers": 2}
    return Transformer(OUTPUTS, **given | options)


def params_of(module, x):
    shapes = jax.eval_shape(lambda: module.init(KEY, x, CLEAN))["params"]
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)


def norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def gelu(x):  # its tanh form
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(p, x, of_weights, of_heads):
    """One query at a time, one head at a time."""
    size, joined = x.shape[1] // HEADS, np.zeros_like(x)
    q, k, v = (dense(p[name], x) for name in ("query", "key", "value"))
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        for t in range(len(x)):
            scores = [q[t, part] @ k[s, part] / np.sqrt(size) for s in range(len(x))]
            weights = scipy.special.softmax(scores) * of_weights[h, t]
            joined[t, part] = sum(w * v[s, part] for s, w in enumerate(weights)) * of_heads[h]
    return dense(p["out"], joined)


def by_hand(p, rows, *, layers=2, keep=None, token=False, factors=None):
    """The network, with a factor at each place where noise may enter."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)
    x = dense(p["embed"], np.asarray(rows, np.float64)) + p["position"]
    if keep is not None:
        x = x[keep]
    if token:
        x = np.concatenate([p["token"], x])
    ones = {
        "weights": np.ones((HEADS, len(x), len(x))),
        "heads": np.ones(HEADS),
        "attention": 1,
        "hidden": 1,
        "mlp": 1,
    }
    for i in range(layers):
        layer, f = p[f"layer_{i}"], ones | (factors or {})
        y = attention(
            layer["attention"], norm(layer["norm_attention"], x), f["weights"], f["heads"]
        )
        x = x + y * f["attention"]
        y = gelu(dense(layer["mlp_in"], norm(layer["norm_mlp"], x))) * f["hidden"]
        x = x + dense(layer["mlp_out"], y) * f["mlp"]
    x = norm(p["norm"], x)
    return dense(p["head"], x[0] if token else x.mean(0))


def patches(image):
    height, width, _ = image.shape
    return np.stack(
        [
            image[i : i + PATCH, j : j + PATCH].reshape(-1)
            for i in range(0, height, PATCH)
            for j in range(0, width, PATCH)
        ]
    )


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("x, rows", [(IMAGE, patches(IMAGE)), (SEQUENCE, SEQUENCE)])
@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_without_noise(x, rows, pooling):
    module = model(pooling=pooling)
    params = params_of(module, x)
    wanted = by_hand(params, rows, token=pooling == "token")
    for draw in (CLEAN, deterministic(parse("bernoulli|attention|head_drop|layer_drop"))):
        assert_close(outputs_of(module, {"params": params}, x, draw), wanted)


def test_attention_is_flaxs():
    x = np.random.default_rng(5).normal(size=(5, WIDTH)).astype(np.float32)
    module = model(layers=1)
    params = params_of(module, IMAGE)["layer_0"]["attention"]
    theirs = {
        name: {
            "kernel": p["kernel"].reshape(WIDTH, HEADS, -1),
            "bias": p["bias"].reshape(HEADS, -1),
        }
        for name, p in params.items()
        if name != "out"
    }
    theirs["out"] = {
        "kernel": params["out"]["kernel"].reshape(HEADS, -1, WIDTH),
        "bias": params["out"]["bias"],
    }
    with jax.numpy_rank_promotion("allow"):
        layer = nn.MultiHeadDotProductAttention(HEADS)
        wanted = compiled(lambda params, x: layer.apply({"params": params}, x))(theirs, x)
    assert_close(attention(params, x, np.ones((HEADS, 5, 5)), np.ones(HEADS)), wanted)


def test_tokens_of_a_vocabulary():
    module, x = model(vocabulary=7), jnp.asarray([3, 0, 3, 6])
    params = params_of(module, x)
    table = params["embed"]["table"]
    rows = table[np.asarray(x)]
    linear = {"embed": {"kernel": np.eye(WIDTH), "bias": np.zeros(WIDTH)}}
    outputs = outputs_of(module, {"params": params}, x, CLEAN)
    assert_close(outputs, by_hand(params | linear, rows))


def site(name, kind, axes):
    return Site(name, kind, axes, 1.0)


def test_noise_enters_where_the_sites_say():
    """All kinds in one layer, each with the mask that its site draws."""
    text = (
        'attention(rate=0.3)|head_drop(rate=0.4)|bernoulli(rate=0.4,at="hidden$")'
        "|stochastic_depth(rate=0.5)"
    )
    module = model(layers=1)
    params = params_of(module, IMAGE)
    sequence = ("time", "feature")
    for number in range(3):  # the key is an argument of the one program
        draw = sampled(parse(text), jax.random.key(number))
        layer = draw.scope("layer_0")
        at, mlp = layer.scope("attention"), layer.scope("mlp")
        (w,) = at.noise(
            site("weights", Kind.ATTENTION, ("head", "query", "key")), (HEADS, TOKENS, TOKENS)
        )
        (h,) = at.noise(site("heads", Kind.HEADS, ("head", "time", "feature")), (HEADS, TOKENS, 3))
        (u,) = mlp.noise(site("hidden", Kind.HIDDEN, sequence), (TOKENS, HIDDEN))
        # The first of the two branches is at half of the depth, and of the rate.
        first, last = (Site("branch", Kind.BRANCH, sequence, depth) for depth in (0.5, 1.0))
        (b1,), (b2,) = (s.noise(b, (TOKENS, WIDTH)) for s, b in ((at, first), (mlp, last)))
        h = np.asarray(h).reshape(-1)
        factors = {
            "weights": keep_of(w) / 0.7,
            "heads": h * HEADS / h.sum(),
            "hidden": keep_of(u) / 0.6,
            "attention": keep_of(b1) / 0.75,
            "mlp": keep_of(b2) / 0.5,
        }
        wanted = by_hand(params, patches(IMAGE), layers=1, factors=factors)
        assert_close(outputs_of(module, {"params": params}, IMAGE, draw), wanted)
        assert not np.allclose(wanted, by_hand(params, patches(IMAGE), layers=1), atol=1e-2)


def test_sites():
    module = model(pooling="token")
    sites = record(lambda draw: module.init(KEY, IMAGE, draw))
    found = {name: (s.kind.name, shape, s.depth) for name, (s, shape) in sites.items()}
    inner, wide = (TOKENS + 1, WIDTH), (WIDTH, WIDTH)
    wanted = {
        "input": ("INPUT", IMAGE.shape, 0),
        "embed/linear": ("LINEAR", (PATCH * PATCH * 2, WIDTH), 0),
        "embedded": ("EMBED", (TOKENS, WIDTH), 0),
        "tokens": ("TOKENS", (TOKENS, WIDTH), 0),
    }
    for i, (depth, end) in enumerate([(0.25, 0.5), (0.75, 1.0)]):
        wanted |= {
            f"layer_{i}/attention/{n}/linear": ("LINEAR", wide, depth)
            for n in ("query", "key", "value")
        }
        wanted |= {
            f"layer_{i}/attention/weights": ("ATTENTION", (HEADS, 7, 7), depth),
            f"layer_{i}/attention/heads": ("HEADS", (HEADS, 7, 3), depth),
            f"layer_{i}/attention/out/linear": ("LINEAR", wide, depth),
            f"layer_{i}/attention/branch": ("BRANCH", inner, depth),
            f"layer_{i}/mlp/in/linear": ("LINEAR", (WIDTH, HIDDEN), end),
            f"layer_{i}/mlp/hidden": ("HIDDEN", (TOKENS + 1, HIDDEN), end),
            f"layer_{i}/mlp/out/linear": ("LINEAR", (HIDDEN, WIDTH), end),
            f"layer_{i}/mlp/branch": ("BRANCH", inner, end),
            f"layer_{i}/layer": ("LAYER", inner, end),
        }
    wanted["head/linear"] = ("LINEAR", (WIDTH, OUTPUTS), 1)
    assert found == wanted
    assert list(found) == list(wanted)  # in the order that the model meets them
    tokens = model(vocabulary=7)
    sites = record(lambda draw: tokens.init(KEY, jnp.asarray([1, 2]), draw))
    kinds = [(name, s.kind.name) for name, (s, _) in sites.items()]
    # One site of kind EMBED, or a word would be dropped twice.
    assert kinds[:3] == [
        ("embed/table", "TABLE"),
        ("embed/embedded", "EMBED"),
        ("tokens", "TOKENS"),
    ]
    assert [kind for _, kind in kinds].count("EMBED") == 1


def test_bad_examples():
    for x, match in [
        (np.zeros((5, 4, 1), np.float32), "patch=2 does not divide the image, 5 x 4"),
        (np.zeros(4, np.float32), r"shape \(4,\)"),
    ]:
        with pytest.raises(ValueError, match=match):
            model().init(KEY, x, CLEAN)
    with pytest.raises(ValueError, match="vocabulary=3 an example is a sequence of integers"):
        model(vocabulary=3).init(KEY, np.zeros(4, np.float32), CLEAN)
