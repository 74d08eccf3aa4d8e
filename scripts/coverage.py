"""Measures how often the intervals of an ablation hold what they should, and prints a table.

  python -m scripts.coverage

Differences between two schemes are drawn whose mean is known, 20,000 times (10,000 for 20 seeds,
2,000 for the confidence sequence). Of each it is asked whether the mean is in the interval, which
is the case exactly if the test of that mean does not reject it. It takes about half a minute.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("coverage", "nothing was changed")

import math
from collections.abc import Callable, Iterator

import numpy as np
import scipy.special
from absl import flags

from dropjax import compare

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
SYMMETRIC: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t, 3 degrees": lambda rng, shape: rng.standard_t(3, shape),
    "-2 to 2 of 360 examples": lambda rng, shape: rng.integers(-2, 3, shape) / 360,
    "-1, 0 or 1 of 360 examples": lambda rng, shape: rng.integers(-1, 2, shape) / 360,
    "-1 or 1 of 360 examples": lambda rng, shape: rng.choice([-1, 1], shape) / 360,
}
"""Symmetric about 0."""
SKEWED: dict[str, Draw] = {
    "exponential": lambda rng, shape: rng.exponential(size=shape) - 1,
    "lognormal": lambda rng, shape: rng.lognormal(size=shape) - math.exp(0.5),
    "one of ten far below": lambda rng, shape: (
        rng.normal(size=shape) - 5 * (rng.uniform(size=shape) < 0.1) + 0.5
    ),
}
"""Of mean 0."""
SEEDS = (6, 8, 10, 20)
LEVEL = 0.95
_ROUNDING = 1e-9
_AT_A_TIME = 2**18


def p_values(x: np.ndarray) -> np.ndarray:
    """The p of the sign-flip test of centre 0 for each row of x (m, n), n at most 24.

    As `compare.paired`, which takes one row: p is the fraction of all subsets of values whose sum
    is not on the side of the whole sum, doubled.
    """
    rows, n = x.shape
    x = np.where(x.sum(axis=1, keepdims=True) < 0, -x, x)
    left, right = _sums(x[:, : n // 2]), _sums(x[:, n // 2 :])
    counts = np.empty(rows)
    small = max(_AT_A_TIME // 2**n, 1)
    if n <= 12:
        for start in range(0, rows, small):
            part = slice(start, start + small)
            every = left[part, :, None] + right[part, None, :]
            counts[part] = (every <= _ROUNDING).sum(axis=(1, 2))
    else:
        left, right = np.sort(left), np.sort(right)
        for row in range(rows):
            # Of each left sum, how many right ones bring it to 0 or below.
            found = np.searchsorted(right[row], _ROUNDING - left[row], side="right")
            counts[row] = found.sum()
    return np.where(np.abs(x.sum(axis=1)) <= _ROUNDING, 1.0, np.minimum(2 * counts / 2**n, 1))


def _sums(x: np.ndarray) -> np.ndarray:
    """The sums of all subsets of each row."""
    subsets = np.arange(2 ** x.shape[1])
    return x @ (subsets >> np.arange(x.shape[1])[:, None] & 1).astype(float)


def of_flips(draw: Draw, n: int, samples: int, rng: np.random.Generator) -> float:
    """The coverage of the intervals of `compare.paired` and `compare.summarise`."""
    return float(np.mean(p_values(draw(rng, (samples, n))) > 1 - LEVEL))


def of_three(draw: Draw, n: int, samples: int, rng: np.random.Generator) -> float:
    """How often all intervals of three schemes hold, which are compared with one baseline.

    What is drawn is the results here, of which differences are taken.
    """
    results = draw(rng, (4, samples, n))
    alpha = 1 - compare.level_of_each(3, level=LEVEL)
    held = [p_values(results[i] - results[0]) > alpha for i in (1, 2, 3)]
    return float(np.mean(np.all(held, axis=0)))


def of_sequence(draw: Draw, n: int, samples: int, rng: np.random.Generator) -> float:
    """How often a confidence sequence holds at all times up to n seeds."""
    rows = draw(rng, (samples, n))
    return float(np.mean([compare.decided(row, level=LEVEL) == 0 for row in rows]))


def of_student(draw: Draw, n: int, samples: int, rng: np.random.Generator) -> float:
    """The coverage of Student's interval, which is not used here."""
    x = draw(rng, (samples, n))
    half = scipy.special.stdtrit(n - 1, (1 + LEVEL) / 2) * x.std(axis=1, ddof=1) / math.sqrt(n)
    return float(np.mean(np.abs(x.mean(axis=1)) <= half + _ROUNDING))


_THREE = ("normal", "-2 to 2 of 360 examples", "exponential", "lognormal")
METHODS = {
    "the interval of a difference or a mean": (of_flips, SYMMETRIC | SKEWED),
    "all of three comparisons": (of_three, {name: (SYMMETRIC | SKEWED)[name] for name in _THREE}),
    "a confidence sequence, at all times": (of_sequence, SYMMETRIC | SKEWED),
    "Student's t (not used)": (of_student, SYMMETRIC | SKEWED),
}


def rows(samples: int, seed: int) -> Iterator[tuple[str, str, list[float | None]]]:
    """What is measured: the method, the differences, the coverage at each of `SEEDS`."""
    for number, (method, (measure, draws)) in enumerate(METHODS.items()):
        for name, draw in draws.items():
            found: list[float | None] = []
            for n in SEEDS:
                rng = np.random.default_rng([seed, number, n])
                none = measure is of_three and n < compare.fewest(compare.level_of_each(3))
                count = samples if n <= 10 or measure is of_student else samples // 2
                count = samples // 10 if measure is of_sequence else count
                found.append(None if none else measure(draw, n, count, rng))
            yield method, name, found


def main(argv: list[str]) -> None:
    """Prints the table, in Markdown."""
    del argv
    print("| of 95 % | differences | " + " | ".join(f"{n} seeds" for n in SEEDS) + " |")
    print("|---|---|" + "---|" * len(SEEDS))
    for method, name, found in rows(flags.FLAGS.samples, flags.FLAGS.seed):
        cells = ["none" if value is None else f"{100 * value:.1f}" for value in found]
        print(f"| {method} | {name} | " + " | ".join(cells) + " |", flush=True)


def _define_flags() -> None:
    """Not where this is imported: other modules have flags of the same names."""
    flags.DEFINE_integer("samples", 20_000, "Experiments a number.", lower_bound=100)
    flags.DEFINE_integer("seed", 0, "Of the draws.")


if __name__ == "__main__":
    _define_flags()
    program.launch("coverage", main)
