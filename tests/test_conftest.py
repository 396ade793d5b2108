"""What starts the tests changes nothing about them."""

import signal
import subprocess
import sys
from pathlib import Path

from hypothesis import settings

IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
CHILD = f"import signal; print([signal.getsignal(n) is signal.SIG_IGN for n in {[*map(int, IGNORED)]}])"
PARENT = f"import conftest, subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)"


def ignore() -> None:
    """As a shell does for a background job, and nohup for its command."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def test_processes_that_tests_start_can_be_interrupted_though_the_tests_run_in_the_background() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PARENT],
        cwd=Path(__file__).parent,
        preexec_fn=ignore,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert "[False, False, False]\n" == said


def test_no_example_of_a_property_has_a_deadline() -> None:
    assert settings.default is not None
    assert settings.default.deadline is None
