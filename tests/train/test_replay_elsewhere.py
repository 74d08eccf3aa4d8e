"""The proof of a replay: other libraries, given dropjax's masks, train to dropjax's losses.

Nets of NumPy, PyTorch and Keras start from the same weights, see the batches that `train.Replay`
says, and multiply by the masks that it says, with a scale written out here. PyTorch and Keras are
asked where they are installed.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import optax
import pytest

from dropjax import CLEAN, models, schemes, train

N, BATCH, CLASSES = 50, 16, 4
RATES = {"input": 0.2, "layer_0/hidden": 0.5, "layer_1/hidden": 0.5}
MLP = ("mlp(widths=(24,20))", 'bernoulli(rate=0.5)|bernoulli(rate=0.2,at="input")', (6,))
LSTM = ("rnn(width=12)", "variational(rate=0.25)", (5, 6))


class Trained:
    """A net trained here: what others have to come to."""

    def __init__(self, net: tuple[str, str, tuple[int, ...]], optimizer: Any, steps: int) -> None:
        model, scheme, shape = net
        rng = np.random.default_rng(1)
        self.x = rng.normal(size=(N, *shape)).astype(np.float32)
        self.y = np.argmax(self.x.reshape(N, -1)[:, :CLASSES], axis=1)
        module = models.parse(model, outputs=CLASSES)
        params = module.init(jax.random.key(0), self.x[0], CLEAN)
        self.params = jax.tree.map(np.array, params["params"])
        problem = train.Problem(
            module.apply,
            train.OBJECTIVES["classification"],
            schemes.parse(scheme),
            optimizer,
        )
        self.program = train.Program(
            problem,
            train.Examples(self.x, self.y),
            key=jax.random.key(7),
            batch_size=BATCH,
            devices=jax.devices()[:1],
        )
        state, self.losses = self.program.init(params), []
        self.replay = self.program.replay()
        for step in range(steps):
            before = state.means() if step % self.program.steps_per_epoch else {}
            seen = step % self.program.steps_per_epoch * BATCH
            state = self.program.run(state, step, step + 1)
            size = min(BATCH, N - seen)
            total = state.means()["loss"] * (seen + size) - before.get("loss", 0.0) * seen
            self.losses.append(total / size)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
        """Of each step the examples, their labels, and by site the mask over 1 - rate."""
        for step in range(len(self.losses)):
            rows = self.replay.batch(step)
            noise = self.replay.noise(step, rows)
            scaled = {}
            for site, (keep,) in noise.items():
                rate = 0.25 if "layer_0/recurrent" in noise else RATES[site]
                scaled[site] = (keep / (1 - rate)).astype(np.float32)
            yield self.x[rows], self.y[rows], scaled

    def check(self, losses: list[float], rel: float) -> None:
        assert len({len(x) for x, _, _ in self.batches()}) == 2, "the last batch is smaller"
        np.testing.assert_allclose(losses, self.losses, rtol=rel)
        print("largest relative difference", np.max(np.abs(np.divide(losses, self.losses) - 1)))


def by_numpy(trained: Trained, masks: Callable[[dict], dict], rate: float) -> list[float]:
    """The MLP with its gradient by hand, under plain gradient descent, in float64."""
    p = jax.tree.map(lambda a: a.astype(np.float64), trained.params)
    losses, names = [], ("layer_0", "layer_1", "head")
    for x, y, noise in trained.batches():
        noise = masks(noise)
        h = [x * noise["input"]]
        active = []
        for name in names[:-1]:
            z = h[-1] @ p[name]["kernel"] + p[name]["bias"]
            active.append(z > 0)
            h.append(np.maximum(z, 0) * noise[f"{name}/hidden"])
        z = h[-1] @ p["head"]["kernel"] + p["head"]["bias"]
        z = z - z.max(axis=1, keepdims=True)
        logs = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        losses.append(-logs[np.arange(len(y)), y].mean())
        d = (np.exp(logs) - np.eye(CLASSES)[y]) / len(y)
        gradients = {}
        for i in reversed(range(3)):
            gradients[names[i]] = {"kernel": h[i].T @ d, "bias": d.sum(axis=0)}
            if i:
                d = d @ p[names[i]]["kernel"].T * noise[f"{names[i - 1]}/hidden"] * active[i - 1]
        p = jax.tree.map(lambda w, g: w - rate * g, p, gradients)
    return losses


def test_numpy_trains_to_the_same_losses():
    trained = Trained(MLP, optax.sgd(0.2), 30)
    trained.check(by_numpy(trained, lambda masks: masks, 0.2), rel=1e-5)


@pytest.mark.parametrize("wrong", ["input", "layer_0/hidden", "layer_1/hidden"])
def test_with_the_masks_of_other_examples_the_losses_differ(wrong):
    """So that the agreement says something: one site's masks handed round in their batch."""
    trained = Trained(MLP, optax.sgd(0.2), 10)
    losses = by_numpy(trained, lambda m: m | {wrong: np.roll(m[wrong], 1, axis=0)}, 0.2)
    assert abs(losses[0] / trained.losses[0] - 1) > 1e-3


def torch_of(tree: Any, torch: Any) -> Any:
    return jax.tree.map(lambda a: torch.tensor(a, requires_grad=True), tree)


OPTIMIZERS = {
    "sgd": (optax.sgd(0.1, momentum=0.9), lambda t, p: t.optim.SGD(p, 0.1, momentum=0.9)),
    "adam": (optax.adam(3e-3), lambda t, p: t.optim.Adam(p, 3e-3)),
}


@pytest.fixture(scope="module")
def torch() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("torch")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("net", [MLP, LSTM], ids=["mlp", "lstm"])
def test_pytorch_trains_to_the_same_losses(torch, net, name):
    optimizer, of_torch = OPTIMIZERS[name]
    trained = Trained(net, optimizer, 100)
    p = torch_of(trained.params, torch)
    leaves = jax.tree.leaves(p, is_leaf=lambda leaf: isinstance(leaf, torch.Tensor))
    theirs, losses = of_torch(torch, leaves), []
    for x, y, noise in trained.batches():
        m = {site: torch.tensor(mask) for site, mask in noise.items()}
        outputs = (mlp_of_torch if net is MLP else lstm_of_torch)(torch, p, torch.tensor(x), m)
        loss = torch.nn.functional.cross_entropy(outputs, torch.tensor(y))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        losses.append(loss.item())
    trained.check(losses, rel=1e-4)


def mlp_of_torch(torch: Any, p: Any, x: Any, m: dict[str, Any]) -> Any:
    x = x * m["input"]
    for name in ("layer_0", "layer_1"):
        x = torch.relu(x @ p[name]["kernel"] + p[name]["bias"]) * m[f"{name}/hidden"]
    return x @ p["head"]["kernel"] + p["head"]["bias"]


def lstm_of_torch(torch: Any, p: Any, x: Any, m: dict[str, Any]) -> Any:
    """PyTorch's own cell; one mask a sequence on its input, its previous state and its output."""
    weights = p["layer_0"]
    h = c = torch.zeros(len(x), 12)
    x = x * m["input"]  # (batch, 1, features): for all steps the same
    for t in range(x.shape[1]):
        h, c = torch.lstm_cell(
            x[:, t],
            (h * m["layer_0/recurrent"][:, 0], c),
            weights["kernel"].T,
            weights["recurrent_kernel"].T,
            weights["bias"],
            torch.zeros(48),
        )
    return h * m["layer_0/output"] @ p["head"]["kernel"] + p["head"]["bias"]


def test_keras_trains_to_the_same_losses():
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        keras = pytest.importorskip("keras")
        trained = Trained(MLP, optax.sgd(0.1, momentum=0.9), 100)
        sites = ("input", "layer_0/hidden", "layer_1/hidden")
        x, *masks = (keras.Input((units,)) for units in (6, 6, 24, 20))
        layers = [keras.layers.Dense(units, "relu") for units in (24, 20)]
        layers.append(keras.layers.Dense(CLASSES))
        y = x * masks[0]
        for layer, mask in zip(layers[:-1], masks[1:], strict=True):
            y = layer(y) * mask
        model = keras.Model([x, *masks], layers[-1](y))
        for layer, name in zip(layers, ("layer_0", "layer_1", "head"), strict=True):
            layer.set_weights([trained.params[name]["kernel"], trained.params[name]["bias"]])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
        losses = []
        for x, y, noise in trained.batches():
            model.reset_metrics()
            losses.append(float(model.train_on_batch([x, *(noise[s] for s in sites)], y)))
        trained.check(losses, rel=1e-4)
