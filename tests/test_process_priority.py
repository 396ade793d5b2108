import os
import platform
import subprocess
import sys

from redline.process.priority import wake_promptly

ASK = """
import os
from redline.process.priority import wake_promptly as ask
print(ask(), os.sched_getscheduler(0), os.nice(0))
"""


def test_asking_to_wake_promptly_changes_neither_policy_nor_priority() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True, timeout=30)

    taken, policy, nice = done.stdout.split()
    assert taken in ("True", "False")
    assert (str(os.sched_getscheduler(0)), str(os.nice(0))) == (policy, nice)


def test_an_unknown_machine_is_left_as_it_is(monkeypatch) -> None:  # type: ignore[no-untyped-def]  # pytest's fixture
    monkeypatch.setattr(platform, "machine", lambda: "abacus")

    assert wake_promptly() is False


def test_running_first_is_had_where_the_kernel_allows_it_and_changes_nothing_elsewhere() -> None:
    ask = ASK.replace("wake_promptly", "run_first")
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=30)

    taken, policy, _ = done.stdout.split()
    real_time = str(os.SCHED_FIFO | os.SCHED_RESET_ON_FORK)
    assert policy == (real_time if taken == "True" else str(os.sched_getscheduler(0)))
