"""What the results of one scheme over its seeds are, in float64.

Source: Agarwal, Schwarzer, Castro, Courville, Bellemare 2021, "Deep Reinforcement Learning at the
Edge of the Statistical Precipice" (arXiv 2108.13264), section 4.3 (interquartile mean).
"""

import dataclasses
import math

import numpy as np
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike

from dropjax.compare.checks import check_level, check_values


@dataclasses.dataclass(frozen=True)
class Summary:
    """Results of one scheme over seeds.

    Args:
      n: seeds.
      mean: over them.
      std: of the sample, with n - 1; NaN for one seed.
      low: lower end of the interval of the mean; NaN for one seed.
      high: upper end.
      iqm: interquartile mean.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    iqm: float


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half.

    The floor(n / 4) lowest and the floor(n / 4) highest values are left out, as
    `scipy.stats.trim_mean(values, 0.25)` does, and as rliable does with it: with n not a multiple
    of 4 more than half of them stay, and of three values all do.

    Args:
      values: (n,), finite.

    Raises:
      ValueError: no values, or one that is not finite.

    Source: Agarwal et al. 2021, section 4.3.
    """
    return float(scipy.stats.trim_mean(check_values(values, "values"), 0.25))


def summarise(values: ArrayLike, *, level: float = 0.95) -> Summary:
    """Mean, spread, interval of the mean and interquartile mean.

    The interval is Student's: exact for normal values, of one number of seeds fixed in advance.

    Args:
      values: (n,), finite.
      level: of confidence, in (0, 1).

    Raises:
      ValueError: no values, or one that is not finite; a level outside (0, 1).
    """
    x, level = check_values(values, "values"), check_level(level)
    n, mean = len(x), float(np.mean(x))
    std = half = math.nan
    if n > 1:
        std = float(np.std(x, ddof=1))
        half = float(scipy.special.stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half, iqm(x))
