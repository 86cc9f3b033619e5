"""Turns on a shared core, as this kernel has them."""

import os
import platform
import subprocess
import sys

from governed_serving.hosting.turns import SHORT, give_way, turn

KNOWN = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2]) >= (6, 12)

PROGRAM = """
import threading
from governed_serving.hosting import short_turns
from governed_serving.hosting.turns import turn
early, end = [], threading.Event()
before = threading.Thread(target=lambda: (end.wait(), early.append(turn())))
before.start()
taken, late = short_turns(), []
end.set()
after = threading.Thread(target=lambda: late.append(turn()))
after.start(), after.join(), before.join()
print(taken, turn(), *early, *late, flush=True)
input()
"""


def test_short_turns_are_a_process_own_with_its_threads_until_it_must_give_way() -> None:
    own = (turn(), os.nice(0))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().split() == ["True", *[str(SHORT if KNOWN else 0)] * 3]
        assert turn(child.pid) == (SHORT if KNOWN else 0)
        assert give_way(child.pid, min(19, own[1] + 7))
        assert turn(child.pid) != SHORT
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, own[1] + 7)
        child.kill()
        child.wait()
        assert not give_way(child.pid, 19), "it has ended"
    assert (turn(), os.nice(0)) == own
