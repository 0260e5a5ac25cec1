"""A log line now and then of how far a long computation is."""

import logging
import time

log = logging.getLogger(__name__)

SECONDS = 5.0


class Told:
    """Called with the share that is done, logs it every five seconds: what is quick is not told of."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.last = self.begun = time.monotonic()

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self.last >= SECONDS:
            self.last = now
            log.info("%s: %.0f %%, %.0f s …", self.what, 100 * share, now - self.begun)
