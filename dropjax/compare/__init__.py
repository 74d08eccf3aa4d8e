"""Comparisons of dropout schemes over seeds: how far apart they are, and whether by chance.

Runs of two schemes with the same seed share initial weights and batches, so that they are compared
in pairs. `summarise` says what one scheme does, `paired` how two differ at a number of seeds fixed
in advance. `level_of_each` is for several comparisons, whose intervals and p-values then agree;
`holm` is for p-values alone. `decided` and `confidence_sequence` are for adding seeds until it is
clear, and `fewest` says how many it takes at least. All of it is about the seeds: that other test
examples would give the same is not in any interval. They need numpy and scipy alone, and take
results as numbers:

  >>> from dropjax import compare
  >>> dropout = [0.950, 0.961, 0.956, 0.964, 0.947, 0.958, 0.955]
  >>> none = [0.944, 0.953, 0.951, 0.958, 0.942, 0.953, 0.946]
  >>> compare.paired(dropout, none).p == compare.smallest_p(7)
  True
  >>> compare.decided([a - b for a, b in zip(dropout, none)])
  7
"""

from dropjax.compare.flips import EXACT_UP_TO
from dropjax.compare.paired import Paired, fewest, holm, level_of_each, paired, smallest_p
from dropjax.compare.sequential import confidence_sequence, decided, evidence
from dropjax.compare.summary import Summary, iqm, summarise

__all__ = [
    "EXACT_UP_TO",
    "Paired",
    "Summary",
    "confidence_sequence",
    "decided",
    "evidence",
    "fewest",
    "holm",
    "iqm",
    "level_of_each",
    "paired",
    "smallest_p",
    "summarise",
]
