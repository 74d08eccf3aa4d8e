"""The one helper for tests of distributions."""

import numpy as np


def assert_mean(samples: np.ndarray, expected: np.ndarray | float, *, sigmas: float = 5) -> None:
    """The mean over axis 0 is `expected`, within 5 standard errors computed from the samples.

    With 10**5 comparisons in the whole suite, 5 sigma fails by chance once in about 20 suites; but
    seeds are fixed, so a test that passes once passes always.
    """
    samples = np.asarray(samples, np.float64)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    gap = np.abs(samples.mean(axis=0) - np.asarray(expected, np.float64))
    # Values that do not vary must be right to rounding.
    allowed = sigmas * error + 1e-6 * (1 + np.abs(expected))
    assert (gap <= allowed).all(), f"off by up to {np.max(gap / allowed) * sigmas:.1f} sigma"
