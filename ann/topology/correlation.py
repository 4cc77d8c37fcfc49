"""Feature correlation of a data set, streamed: the basis of the CSTI topology."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.common.errors import DataError


def feature_correlation(chunks: Iterable[ArrayLike]) -> NDArray[np.float64]:
    """Return \\|Pearson correlation\\| between the features of a data set, with a zero diagonal.

    Parameters
    ----------
    chunks : iterable of array[b, n]
        The samples in chunks of any size; only sums are kept, so memory is O(n^2 + b n).

    Returns
    -------
    float64[n, n]
        Symmetric; 0 on the diagonal and wherever a feature is constant.

    Raises
    ------
    DataError
        If there are fewer than two samples, a chunk has another width, or a value is not finite.

    Notes
    -----
    Sums and products are taken about the first sample, in float64: constant features then have a variance of exactly
    zero, and cancellation is harmless.
    """
    count = 0
    origin = total = np.empty(0)
    products = np.empty((0, 0))
    for chunk in chunks:
        samples = np.asarray(chunk, dtype=np.float64)
        if samples.ndim != 2 or (count and samples.shape[1] != origin.size):
            wanted = f"(samples, {origin.size})" if count else "(samples, features)"
            raise DataError(f"chunk of samples has shape {samples.shape}, expected {wanted}: flatten each sample")
        if not np.isfinite(samples).all():
            raise DataError("chunk of samples holds values that are not finite; clean the data before correlating features")
        if not samples.size:
            continue
        if not count:
            origin = samples[0].copy()
            total = np.zeros(origin.size)
            products = np.zeros((origin.size, origin.size))
        centred = samples - origin
        count += len(samples)
        total += centred.sum(axis=0)
        products += centred.T @ centred
    if count < 2:
        raise DataError(f"{count} samples were given, expected at least 2 to correlate features")

    covariance = products - np.outer(total, total) / count
    variance = covariance.diagonal().copy()
    varies = variance > 0.0
    scale = np.where(varies, 1.0 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
    correlation = np.abs(covariance * np.outer(scale, scale))
    np.fill_diagonal(correlation, 0.0)
    return np.asarray(np.minimum(correlation, 1.0))
