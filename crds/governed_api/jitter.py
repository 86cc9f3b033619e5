"""The generator that pauses are drawn from, so that callers that failed together don't come again together."""

import random

JITTER = random.SystemRandom()
"""Without a state: forked processes draw apart, and nobody's seed is moved on by a thread in the background."""
