"""PyTorch on the cells of benchmark_ablation, one after another in one process.

It imports nothing of dropjax: its interpreter needs numpy and torch. `benchmark_ablation` starts
this file with one argument, its `Work` as JSON, and reads lines of JSON: first that the data are in
memory, then the name, with the number of threads and the Adam that were found to be faster; then,
for each `Cell` that it writes, what that cell took and how well it predicts.

The loop is a plain one with nothing to slow it down: float32 tensors in memory, shuffled once an
epoch and cut into batches without a DataLoader; Adam that updates all parameters in one call;
inference mode for predictions; the draws of Monte-Carlo in one batch where noise is an example's
own. It does what a cell of the ablation does but for the training accuracy, the calibration error
and the files.
"""

import dataclasses
import importlib
import itertools
import json
import math
import sys
import time
from typing import Any

import numpy as np

EPSILON = 1e-8
_ROUNDS = 20  # of an epoch each way
_HOPELESS = 3  # times as slow as the fastest


@dataclasses.dataclass(frozen=True)
class Work:
    """What the peer is to train.

    Args:
      data: an npz file with x_train, y_train and so on for validation and test; x (examples,
        features) is standardised.
      hidden: units of the hidden layer.
      outputs: classes.
      epochs: passes over the training data.
      batch_size: examples in a step.
      learning_rate: Adam's.
      samples: draws for the Monte-Carlo prediction.
      threads: the most to use.
    """

    data: str
    hidden: int
    outputs: int
    epochs: int
    batch_size: int
    learning_rate: float
    samples: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run.

    Args:
      scheme: "none", "bernoulli", "gaussian" or "dropconnect".
      rate: of dropping; 0 for none.
      seed: of weights, order and noise.
    """

    scheme: str
    rate: float
    seed: int


class Peer:
    """The loop, and the threads and the optimiser that it uses.

    Args:
      torch: the module.
      work: for it.
    """

    def __init__(self, torch: Any, work: Work) -> None:
        self.torch, self.work = torch, work
        self.optimizer = {"fused": True}
        torch.set_flush_denormal(True)  # as XLA does
        with np.load(work.data) as arrays:
            self.data = {
                part: (
                    torch.from_numpy(arrays[f"x_{part}"]),
                    torch.from_numpy(arrays[f"y_{part}"]).long(),
                )
                for part in ("train", "validation", "test")
            }

    def choose(self) -> str:
        """Finds the fastest of one thread or all, and fused or foreach Adam; returns its name."""
        ways = list(itertools.product(sorted({1, self.work.threads}), ("fused", "foreach")))
        least = dict.fromkeys(ways, math.inf)
        for number in range(_ROUNDS):
            for way in ways:
                self._use(*way)
                began = time.perf_counter()
                self.train(Cell("bernoulli", 0.3, 0), epochs=1)
                least[way] = min(time.perf_counter() - began, least[way])
            if number:  # the first round starts threads
                # On a busy machine, threads that wait for each other would take minutes.
                ways = [way for way in ways if least[way] < _HOPELESS * min(least.values())]
        best = min(ways, key=lambda way: least[way])
        self._use(*best)
        threads = f"{best[0]} thread{'s' * (best[0] > 1)}"
        return f"PyTorch {self.torch.__version__}, {threads}, {best[1]} Adam"

    def _use(self, threads: int, optimizer: str) -> None:
        self.torch.set_num_threads(threads)
        self.optimizer = {optimizer: True}

    def net(self, cell: Cell) -> Any:
        """Inputs to logits, with the noise of the cell's scheme in training."""
        torch, nn = self.torch, self.torch.nn
        rate, deviation = cell.rate, math.sqrt(cell.rate / (1 - cell.rate))

        class Gaussian(nn.Module):
            def forward(self, x: Any) -> Any:
                return x * torch.empty_like(x).normal_(1, deviation) if self.training else x

        class DropConnect(nn.Linear):
            def forward(self, x: Any) -> Any:
                weight = nn.functional.dropout(self.weight, rate, self.training)
                return nn.functional.linear(x, weight, self.bias)

        linear = DropConnect if cell.scheme == "dropconnect" else nn.Linear
        layers = [linear(self.data["train"][0].shape[1], self.work.hidden), nn.ReLU()]
        if cell.scheme == "bernoulli":
            layers.append(nn.Dropout(rate))
        elif cell.scheme == "gaussian":
            layers.append(Gaussian())
        layers.append(linear(self.work.hidden, self.work.outputs))
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)

    def train(self, cell: Cell, epochs: int) -> tuple[Any, list[dict[str, float]]]:
        """A trained network, and a record an epoch."""
        torch, work = self.torch, self.work
        torch.manual_seed(cell.seed)
        net = self.net(cell)
        optimizer = torch.optim.Adam(
            net.parameters(), lr=work.learning_rate, eps=EPSILON, **self.optimizer
        )
        (x, y), loss_of, records = self.data["train"], torch.nn.functional.cross_entropy, []
        for _ in range(epochs):
            net.train()
            order, total = torch.randperm(len(x)), torch.zeros(())
            batches = (a[order].split(work.batch_size) for a in (x, y))
            for inputs, labels in zip(*batches, strict=True):
                loss = loss_of(net(inputs), labels)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(labels)
            found = self.measure(self.logits(net, "validation"), "validation")
            records.append({"train_loss": total.item() / len(x)} | found)
        return net, records

    def logits(self, net: Any, part: str) -> Any:
        """Without noise."""
        net.eval()
        with self.torch.inference_mode():
            return net(self.data[part][0])

    def sampled(self, net: Any, cell: Cell) -> Any:
        """Log-probabilities on the test data, averaged over draws of the noise."""
        torch, x, samples = self.torch, self.data["test"][0], self.work.samples
        net.train()
        with torch.inference_mode():
            if cell.scheme == "dropconnect":  # one mask serves a batch
                logits = torch.stack([net(x) for _ in range(samples)])
            else:
                logits = net(x.repeat(samples, 1)).reshape(samples, len(x), -1)
            return logits.softmax(-1).mean(0).log()

    def measure(self, logits: Any, part: str, name: str = "") -> dict[str, float]:
        """Loss and accuracy under the names that the ablation has."""
        y, name = self.data[part][1], name or part
        loss = self.torch.nn.functional.cross_entropy(logits, y).item()
        accuracy = (logits.argmax(1) == y).float().mean().item()
        return {f"{name}_loss": loss, f"{name}_accuracy": accuracy}

    def run(self, cell: Cell) -> dict[str, float]:
        """Trains and measures a cell: the results of its last epoch, and what it took."""
        began, cpu = time.perf_counter(), time.process_time()
        net, records = self.train(cell, self.work.epochs)
        result = dict(records[-1])
        for part in self.data:
            result |= self.measure(self.logits(net, part), part)
        if cell.scheme != "none":
            result |= self.measure(self.sampled(net, cell), "test", "mc_test")
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
        return result | {"seconds": seconds, "cpu": cpu}


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def main(work: Work) -> None:
    """Answers until its input ends."""
    try:
        peer = Peer(importlib.import_module("torch"), work)
    except ImportError as error:
        _say(skipped=f"{sys.executable} cannot import it: {error}")
        return
    _say(ready=True, cpu=time.process_time())
    _say(name=peer.choose())
    for line in sys.stdin:
        _say(**peer.run(Cell(**json.loads(line))))


if __name__ == "__main__":
    main(Work(**json.loads(sys.argv[1])))
