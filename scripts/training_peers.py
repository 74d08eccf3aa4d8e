"""PyTorch and Keras on the nets of benchmark_training, each in an interpreter of its own.

It imports nothing of dropjax: such an interpreter needs numpy and torch, or numpy, tensorflow and
keras. `benchmark_training` starts this file with one argument, its `Work` as JSON, and reads lines
of JSON: first who answers, then, for each line it writes, the seconds of an epoch, its mean
training loss and the accuracy on the test images.

The nets have dropjax's shapes and dropout, and initial weights of dropjax's distributions (Glorot's
for dense layers and the LSTM's input, orthogonal for its hidden state, He's for convolutions; no
bias but 1 for the LSTM's forget gate). With other weights to start from, epochs to an accuracy
would be those of the weights. Adam has the epsilon that PyTorch and optax have.
"""

import dataclasses
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

BATCH, LEARNING_RATE, EPSILON = 128, 1e-3, 1e-8
_EVALUATED_AT_ONCE = 1000
_MLPS = {
    "mlp_512_256": ((512, 256), 0.25),
    "mlp_256": ((256,), 0.5),
    "mlp_1024_1024": ((1024, 1024), 0.5),
}
_CHANNELS, _LSTM = (32, 64, 128), 128


@dataclasses.dataclass(frozen=True)
class Work:
    """What a peer is to train.

    Args:
      library: "torch" or "keras".
      net: its name.
      data: an npz file with x_train, y_train, x_test and y_test; x is uint8.
      evaluate: whether the accuracy on the test images is wanted.
      seed: of weights, order and masks.
      threads: to use.
      channels_last: PyTorch's memory format.
      jit: Keras' jit_compile.
    """

    library: str
    net: str
    data: str
    evaluate: bool
    seed: int
    threads: int
    channels_last: bool = False
    jit: bool | str = "auto"


class Peer(NamedTuple):
    """A peer that is ready.

    Args:
      name: with its version.
      parameters: how many its net has.
      epoch: trains an epoch; returns its mean loss.
      accuracy: on the test images.
    """

    name: str
    parameters: int
    epoch: Callable[[], float]
    accuracy: Callable[[], float]


def _images(work: Work) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    with np.load(work.data) as arrays:
        x_train, x_test = (arrays[name].astype(np.float32) / 255 for name in ("x_train", "x_test"))
        return x_train, arrays["y_train"], x_test, arrays["y_test"]


def _torch_net(nn: Any, net: str) -> Any:
    """Of x (batch, 1, 28, 28)."""

    class Rows(nn.Module):
        """An LSTM over rows; its last output."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(28, _LSTM, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0][:, -1]

    layers: list[Any] = []
    if net == "lstm_128":
        layers += [nn.Flatten(1, 2), nn.Dropout(0.2), Rows(), nn.Dropout(0.2), nn.Linear(_LSTM, 10)]
    elif net == "cnn":
        inputs = 1
        for stage, width in enumerate(_CHANNELS):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
            layers += [nn.Dropout(0.25)] if stage < 2 else []
            inputs = width
        layers += [nn.Flatten(), nn.Linear(3 * 3 * inputs, 128), nn.ReLU(), nn.Dropout(0.5)]
        layers += [nn.Linear(128, 10)]
    else:
        (widths, rate), inputs = _MLPS[net], 784
        layers += [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(rate)]
            inputs = width
        layers += [nn.Linear(inputs, 10)]

    def start(layer: Any) -> None:
        init = nn.init
        if isinstance(layer, nn.LSTM):
            init.xavier_uniform_(layer.weight_ih_l0)
            for gate in layer.weight_hh_l0.data.chunk(4):
                init.orthogonal_(gate)
            init.zeros_(layer.bias_ih_l0)
            init.zeros_(layer.bias_hh_l0)
            init.ones_(layer.bias_ih_l0.data[_LSTM : 2 * _LSTM])
        elif isinstance(layer, nn.Conv2d):
            init.kaiming_normal_(layer.weight, nonlinearity="relu")
            init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            init.xavier_uniform_(layer.weight)
            init.zeros_(layer.bias)

    return nn.Sequential(*layers).apply(start)


def _torch(work: Work) -> Peer:
    """A plain loop over float32 tensors in memory, with fused Adam."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(work.threads)
    torch.set_flush_denormal(True)  # as XLA does
    torch.manual_seed(work.seed)
    arrays = _images(work)
    layout = torch.channels_last if work.channels_last else torch.contiguous_format
    x, x_test = (torch.from_numpy(a.reshape(-1, 1, 28, 28)) for a in arrays[::2])
    y, y_test = (torch.from_numpy(a).long() for a in arrays[1::2])
    net = _torch_net(torch.nn, work.net).to(memory_format=layout)
    x, x_test = x.to(memory_format=layout), x_test.to(memory_format=layout)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, eps=EPSILON, fused=True)

    def epoch() -> float:
        net.train()
        total = torch.zeros(())
        for rows in torch.randperm(len(x)).split(BATCH):
            outputs = net(x.index_select(0, rows))
            loss = torch.nn.functional.cross_entropy(outputs, y.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)
        return total.item() / len(x)

    def accuracy() -> float:
        net.eval()
        with torch.no_grad():
            found = [net(part).argmax(1) for part in x_test.split(_EVALUATED_AT_ONCE)]
        return (torch.cat(found) == y_test).float().mean().item()

    name = f"PyTorch {torch.__version__}" + (", channels last" if work.channels_last else "")
    return Peer(name, sum(p.numel() for p in net.parameters()), epoch, accuracy)


def _keras_net(keras: Any, net: str) -> Any:
    """Of x (batch, 28, 28, 1)."""
    layers = keras.layers
    stack: list[Any] = [keras.Input((28, 28, 1))]
    if net == "lstm_128":
        lstm = layers.LSTM(_LSTM, dropout=0.2, recurrent_dropout=0.2)
        stack += [layers.Reshape((28, 28)), lstm, layers.Dropout(0.2)]
    elif net == "cnn":
        for stage, width in enumerate(_CHANNELS):
            stack += [layers.Conv2D(width, 3, padding="same", kernel_initializer="he_normal")]
            stack += [layers.MaxPooling2D(2), layers.ReLU()]
            stack += [layers.Dropout(0.25)] if stage < 2 else []
        stack += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dropout(0.5)]
    else:
        widths, rate = _MLPS[net]
        stack += [layers.Flatten()]
        for width in widths:
            stack += [layers.Dense(width, activation="relu"), layers.Dropout(rate)]
    return keras.Sequential([*stack, layers.Dense(10)])


def _keras(work: Work) -> Peer:
    """`Model.fit` on TensorFlow, an epoch a call, with arrays in memory."""
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    tf: Any = importlib.import_module("tensorflow")
    keras: Any = importlib.import_module("keras")
    tf.config.threading.set_intra_op_parallelism_threads(work.threads)
    tf.config.threading.set_inter_op_parallelism_threads(work.threads)
    keras.utils.set_random_seed(work.seed)
    x, y, x_test, y_test = _images(work)
    net = _keras_net(keras, work.net)
    net.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=work.jit,
    )

    def epoch() -> float:
        history = net.fit(x, y, batch_size=BATCH, epochs=1, shuffle=True, verbose=0)
        return float(history.history["loss"][0])

    def accuracy() -> float:
        outputs = net.predict(x_test, batch_size=_EVALUATED_AT_ONCE, verbose=0)
        return float((outputs.argmax(1) == y_test).mean())

    xla = "XLA" if net.jit_compile else "no XLA"
    name = f"Keras {keras.__version__} (TF {tf.__version__}, {xla})"
    return Peer(name, net.count_params(), epoch, accuracy)


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def main(work: Work) -> None:
    """Answers until its input ends."""
    try:
        peer = {"torch": _torch, "keras": _keras}[work.library](work)
    except ImportError as error:
        _say(skipped=f"{sys.executable} cannot import it: {error}")
        return
    _say(name=peer.name, parameters=int(peer.parameters))
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = peer.epoch()
        seconds = time.perf_counter() - began
        accuracy = peer.accuracy() if work.evaluate else None
        _say(seconds=seconds, loss=loss, accuracy=accuracy)


if __name__ == "__main__":
    main(Work(**json.loads(sys.argv[1])))
