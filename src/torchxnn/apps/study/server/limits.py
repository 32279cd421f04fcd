"""How often somebody may ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_MOST_KEYS = 20_000


class Buckets:
    """Token buckets by key: `rate` requests a second on average, `burst` at once."""

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._levels: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait(self, key: str) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        now = self._clock()
        with self._lock:
            if len(self._levels) > _MOST_KEYS:
                self._levels = {
                    each: (level, before)
                    for each, (level, before) in self._levels.items()
                    if level + (now - before) * self._rate < self._burst
                }
            level, before = self._levels.get(key, (self._burst, now))
            level = min(self._burst, level + (now - before) * self._rate)
            if level >= 1:
                self._levels[key] = (level - 1, now)
                return 0.0
            self._levels[key] = (level, now)
            return (1 - level) / self._rate
