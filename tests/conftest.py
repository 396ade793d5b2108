"""What holds for every test, whoever starts them."""

import os
import signal
import tempfile
from pathlib import Path

from hypothesis import settings

settings.register_profile("redline", settings(), deadline=None)  # a busy machine is no failure
settings.load_profile("redline")

# A shell starts background jobs with SIGINT and SIGQUIT ignored, nohup its command with SIGHUP: the processes that
# tests start and interrupt would inherit that. They do not inherit a handler.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else lambda *_: None)

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):  # or each of many processes would compile everything again
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / f"redline-pycache-{os.getuid()}")
