"""What the tests of many devices compute. It prints JSON.

python -m tests.train.on_devices              on eight devices of one process
python -m tests.train.on_devices NUMBER PORT  as one of two processes with two devices each
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dropjax import keep_mask, models, train
from dropjax.core.draw import sampled
from dropjax.core.site import Kind, Site
from dropjax.runs import Network
from dropjax.schemes import parse
from tests.conftest import optimising

KEY = jax.random.key(5)
N, BATCH = 42, 16
X = 3 * np.random.default_rng(0).normal(size=(N, 4, 4, 2)).astype(np.float32) + 1
Y = np.arange(N, dtype=np.int32) % 3
NETWORK = Network(
    models.parse('cnn(channels=(4,),dense=(),norm="batch")', 3),
    parse('cutout(size=2)|bernoulli(rate=0.2,at="input")'),
)
MIXED = parse(
    "bernoulli|dropconnect(rate=0.3)|tests.throwaway:LearnedRate"
    '|tests.throwaway:WholeBatch(rate=0.3,at="mask")'
)
BITS = np.float32(2) ** np.arange(20, dtype=np.float32)
# Small whole numbers, so that their sum over a batch is exact in any order.
CODES = np.float32([1, 3, 7, 15, 31, 63])


def plain(tree: Any) -> list[Any]:
    """The leaves of a tree, as JSON has them."""
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(tree)]


def batch_norm() -> dict[str, Any]:
    """Two epochs of a network with batch norm and noise on its input, on all devices.

    Without optimisations JAX's CPU code for it ends in NaN.
    """
    params, mutable = NETWORK.init(jax.random.key(1), X[0])
    problem = train.Problem(
        NETWORK.forward,
        train.OBJECTIVES["classification"],
        NETWORK.scheme,
        optax.sgd(0.05),
        stateful=True,
    )
    fitted = train.fit(problem, params, X, Y, key=KEY, epochs=2, batch_size=BATCH, mutable=mutable)
    return {
        "loss": [epoch["loss"] for epoch in fitted.history],
        "params": plain(fitted.params),
        "mutable": plain(fitted.mutable),
    }


def by_formula() -> dict[str, Any]:
    """Two epochs of the network with batch norm over whole batches, without any axis."""
    image = Site("input", Kind.INPUT, ("height", "width", "feature"))
    of_batches = train.Replay(KEY, N, BATCH)

    @jax.jit
    def noisy(step, rows):
        draws = jax.vmap(lambda row: sampled(NETWORK.scheme, train.keys_of(KEY, step, row)))(rows)
        return jax.vmap(lambda draw, x: draw(x, image))(draws, jnp.asarray(X)[rows])

    def loss(params, xs, y):
        block = params["stage_0_block_0"]
        out = jax.lax.conv_general_dilated(
            xs, block["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean, var = out.mean((0, 1, 2), keepdims=True), out.var((0, 1, 2), keepdims=True)
        scale, shift = (
            block["conv_norm"]["norm"][name][None, None, None] for name in ("scale", "bias")
        )
        out = (out - mean) / jnp.sqrt(var + 1e-5) * scale + shift
        two = (1, 2, 2, 1)
        out = jax.lax.reduce_window(out, -jnp.inf, jax.lax.max, two, two, "VALID")
        head = params["head"]
        logits = jax.nn.relu(out).reshape(len(xs), -1) @ head["kernel"] + head["bias"][None]
        each = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return each.mean(), (mean.ravel(), var.ravel())

    of_batch = jax.jit(jax.value_and_grad(loss, has_aux=True))
    params, _ = NETWORK.init(jax.random.key(1), X[0])
    running, losses = (jnp.zeros(4), jnp.ones(4)), []
    for step in range(6):
        rows = of_batches.batch(step)
        (value, seen), slope = of_batch(params, noisy(step, rows), Y[rows])
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, slope)
        running = tuple(0.9 * r + 0.1 * s for r, s in zip(running, seen, strict=True))
        losses.append(value * len(rows) / N)
    return {
        "loss": [float(sum(losses[:3])), float(sum(losses[3:]))],
        "params": plain(params),
        "mutable": plain(running),
    }


def mixed(devices: Any) -> dict[str, Any]:
    """By step, the sum of losses and that of codes of what the masks kept; and what is trained."""
    linear = Site("linear", Kind.LINEAR, ("input", "output"))
    hidden, mask = (Site(name, Kind.HIDDEN, ("feature",)) for name in ("hidden", "mask"))

    def apply(params, x, draw):
        outputs = draw.linear(draw(x, hidden), params["w"], params["b"], linear)
        return outputs, jnp.sum(jnp.where(draw(jnp.ones(6), mask) != 0, CODES, 0))

    def metrics(outputs, y):
        return {"loss": jnp.sum((outputs[0] - y) ** 2), "masks": outputs[1]}

    rng = np.random.default_rng(0)
    x, y, w = (np.float32(rng.normal(size=size)) for size in ((50, 6), (50, 4), (6, 4)))
    problem = train.Problem(
        apply,
        metrics,
        MIXED,
        optax.sgd(0.01),
        regularizer=train.WeightPenalty(l2=0.1),
        augment=lambda key, x: x + 0.1 * jax.random.normal(key, x.shape),
    )
    data = train.Examples(x, y)
    program = train.Program(problem, data, key=KEY, batch_size=BATCH, devices=devices)
    state = program.init({"w": w, "b": np.zeros(4, np.float32)})
    totals = []
    for step in range(2 * program.steps_per_epoch):
        state = jax.block_until_ready(program.run(state, step, step + 1))
        totals.append({name: float(total) for name, total in state.totals.items()})
    return {
        "losses": [of["loss"] for of in totals],
        "masks": [of["masks"] for of in totals],
        "params": plain(state.params),
    }


def codes_of(key: jax.Array, rows: int) -> jax.Array:
    """A number for each row that tells which of 20 bits were kept."""
    return keep_mask(key, 0.5, (rows, 20)).astype(jnp.float32) @ BITS


def batched(devices: Any) -> float:
    """The mean of the codes over the first batch, of a model that takes a whole one."""

    def apply(params, xs, key):
        return params + codes_of(key, len(xs))

    problem = train.Problem(
        apply, lambda code, y: {"loss": code}, None, optax.sgd(0.0), batched=True
    )
    data = train.Examples(X, Y)
    program = train.Program(problem, data, key=KEY, batch_size=BATCH, devices=devices)
    return program.run(program.init(jnp.zeros(())), 0, 1).means()["loss"]


def lanes(devices: Any) -> list[Any]:
    """Three lanes of other rates and other rows, two at a time."""
    from tests.train import test_lanes

    grid = [
        train.Lane(
            jax.random.key(i),
            parse(f"bernoulli(rate=0.{i})|tests.throwaway:LearnedRate"),
            rows=np.arange(i, i + 7),
        )
        for i in (1, 2, 3)
    ]
    fits = test_lanes.train(test_lanes.problem(grid[0].scheme), grid, at_a_time=2, devices=devices)
    return [[fitted.history, plain((fitted.params, fitted.learned))] for fitted in fits]


def replayed(devices: Any) -> list[Any]:
    """By step and row, what the values 1 became under noise."""
    from tests.train import test_replay

    program = test_replay.program(devices=devices)
    by_step = test_replay.seen(program, 2 * test_replay.STEPS)
    return [{row: values.tolist() for row, values in by_row.items()} for by_row in by_step]


def main() -> dict[str, Any]:
    eight = jax.devices()
    found = {
        "mixed": {count: mixed(eight[:count]) for count in (1, 8)},
        "batched": batched(eight),
        "lanes": {count: lanes(eight[:count]) for count in (1, 4)},
        "replayed": replayed(eight),
        "formula": by_formula(),
    }
    with optimising():
        return found | {"batch norm": batch_norm()}


if __name__ == "__main__":
    print(json.dumps(main()))
