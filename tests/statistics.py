"""The one helper for tests of distributions."""

import numpy as np

from dropjax.core.trial import sigmas_off


def assert_mean(samples: np.ndarray, expected: np.ndarray | float, *, sigmas: float = 5) -> None:
    """The mean over axis 0 is `expected`, within 5 standard errors computed from the samples.

    With 10**5 comparisons in the whole suite, 5 sigma fails by chance once in about 20 suites; but
    seeds are fixed, so a test that passes once passes always.
    """
    off = sigmas_off(samples, expected, sigmas)
    assert off <= sigmas, f"off by up to {off:.1f} sigma"
