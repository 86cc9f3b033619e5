"""What the start left in memory stays for the life of the process: collections need not look through it."""

import gc

__all__ = ["start_is_over"]


def start_is_over() -> None:
    """Out of the collector's sight with all that there is now, garbage excepted.

    Of modules, schemas and routes there are some 90,000 objects; a full collection stops every request for 60 ms to
    find all of them in use. Afterwards it takes as long as what requests leave behind.
    """
    gc.collect()
    gc.freeze()
