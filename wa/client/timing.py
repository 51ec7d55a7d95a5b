"""The client's intervals, in milliseconds; one value, so that a test or a simulator can shorten them."""

import random
from dataclasses import dataclass

from wa import limits


@dataclass(frozen=True)
class Timing:
    resend_after_ms: int = limits.CLIENT_RESEND_AFTER_MS
    ping_interval_ms: int = limits.PING_INTERVAL_MS
    request_ms: int = limits.CLIENT_REQUEST_MS_MAX
    connect_ms: int = limits.CLIENT_CONNECT_MS_MAX
    backoff_ms_min: int = limits.CLIENT_BACKOFF_MS_MIN
    backoff_ms_max: int = limits.CLIENT_BACKOFF_MS_MAX
    refused_backoff_ms_min: int = limits.CLIENT_REFUSED_BACKOFF_MS_MIN
    refused_backoff_ms_max: int = limits.CLIENT_REFUSED_BACKOFF_MS_MAX


@dataclass
class Backoff:
    """Exponential waits with jitter in their upper half: many clients must not come back together."""

    ms_min: int
    ms_max: int
    failures: int = 0

    def next_s(self, at_least_ms: int = 0) -> float:
        """Seconds to wait now.  `at_least_ms`: what the server asked for; jitter only adds to it."""
        span = min(self.ms_min << min(self.failures, 20), self.ms_max)
        self.failures += 1
        wait = random.uniform(span / 2, span)
        if at_least_ms:
            wait = max(wait, at_least_ms * random.uniform(1.0, 1.2))
        return wait / 1_000

    def reset(self) -> None:
        self.failures = 0
