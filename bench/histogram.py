"""The generator's histograms in Python: bench/_load/hist.pxd has their buckets."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SUB_BITS = 6
BUCKETS_N = (64 - SUB_BITS + 1) << SUB_BITS


def _lower_bounds() -> npt.NDArray[np.float64]:
    index = np.arange(BUCKETS_N)
    exponent = np.maximum((index >> SUB_BITS) - 1, 0)
    mantissa = np.where(index >= 1 << SUB_BITS, (index & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS), index)
    return np.asarray(mantissa * np.exp2(exponent), dtype=np.float64)


BOUNDS = np.append(_lower_bounds(), 2.0**64)


@dataclass(frozen=True)
class Histogram:
    """Counts of nanoseconds per bucket."""

    counts: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, data: bytes) -> "Histogram":
        return cls(np.frombuffer(data, dtype=np.uint64).copy())

    @classmethod
    def empty(cls) -> "Histogram":
        return cls(np.zeros(BUCKETS_N, dtype=np.uint64))

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(self.counts + other.counts)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def quantile_ms(self, q: float) -> float:
        """Middle of the bucket that holds the q-quantile (0..1), in ms; NaN without values."""
        if self.n == 0:
            return float("nan")
        at = int(np.searchsorted(np.cumsum(self.counts), q * self.n, side="left"))
        at = min(at, BUCKETS_N - 1)
        return float((BOUNDS[at] + BOUNDS[at + 1]) / 2e6)

    def max_ms(self) -> float:
        """Upper bound of the highest bucket in use, in ms; NaN without values."""
        used = np.flatnonzero(self.counts)
        return float(BOUNDS[used[-1] + 1] / 1e6) if len(used) else float("nan")

    def summary(self) -> dict[str, float]:
        return {f"p{q:g}_ms": self.quantile_ms(q / 100) for q in (50, 90, 99, 99.9)} | {"n": float(self.n)}
