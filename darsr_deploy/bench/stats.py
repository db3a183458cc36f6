"""Statistics of latencies. Nothing is interpolated: a percentile is a latency that was seen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

STEADY_CV = 2.5  # per cent: above it trtexec warns, and so does this toolkit


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return the smallest sample that at least ``percent`` of all samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(1, math.ceil(percent / 100 * len(ordered))) - 1]


def summary(samples: Sequence[float]) -> dict:
    """Return ``n, min_ms, mean_ms, median_ms, p90_ms, p95_ms, p99_ms, max_ms, cv_percent`` of milliseconds."""
    mean = statistics.fmean(samples)
    spread = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return {
        "n": len(samples),
        "min_ms": min(samples),
        "mean_ms": mean,
        "median_ms": percentile(samples, 50),
        **{f"p{p}_ms": percentile(samples, p) for p in (90, 95, 99)},
        "max_ms": max(samples),
        "cv_percent": 100 * spread / mean,
    }


def upper_bound(samples: Sequence[float], percent: float, confidence: float = 0.99) -> float | None:
    """Return an upper bound of the true percentile with this confidence: MLPerf's estimate for few queries.

    The k-th least of n samples is such a bound if at most k - 1 of n fall under the percentile with this probability
    (binomial). From 44 samples on there is one for the 90th percentile, from 459 on for the 99th.

    Returns:
        None where even the largest sample is not certain enough.
    """
    share, below = percent / 100, 0.0
    for k, sample in enumerate(sorted(samples)):
        below += _binomial(len(samples), k, share)
        if below >= confidence:
            return sample
    return None


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Return a confidence interval of the median, from ranks alone, whatever the distribution.

    Returns:
        ``(low, high, confidence that it has)``: the narrowest pair of ranks with at least the confidence asked for, or the
        whole range, which may have less.
    """
    ordered, n = sorted(values), len(values)
    best = (ordered[0], ordered[-1], 1 - 2 * 0.5**n)
    outside = 0.0
    for k in range(1, n // 2 + 1):  # from the k-th least to the k-th largest
        outside += 2 * _binomial(n, k - 1, 0.5)
        if 1 - outside < confidence:
            break
        best = (ordered[k - 1], ordered[n - k], 1 - outside)
    return best


def _binomial(n: int, k: int, p: float) -> float:
    logarithm = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(logarithm + k * math.log(p) + (n - k) * math.log1p(-p))
