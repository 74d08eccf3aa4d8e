"""Comparisons of dropout schemes over seeds."""

from dropjax.compare.paired import EXACT_UP_TO, Paired, holm, paired, smallest_p
from dropjax.compare.summary import Summary, iqm, summarise

__all__ = [
    "EXACT_UP_TO",
    "Paired",
    "Summary",
    "holm",
    "iqm",
    "paired",
    "smallest_p",
    "summarise",
]
