"""The built-in load generator: `open_session` measures an OpenAI-compatible server under an open or a closed loop."""

from redline.loadgen.session import LoadSession, open_session

__all__ = ["LoadSession", "open_session"]
