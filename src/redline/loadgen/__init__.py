"""The built-in load generator: `open_session` measures an OpenAI-compatible server under an open or a closed loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redline.loadgen.session import LoadSession, open_session

__all__ = ["LoadSession", "open_session"]


def __getattr__(name: str) -> object:
    """Import on first use: the load worker lives in this package, and its start must not load what its driver needs."""
    if name in __all__:
        from redline.loadgen import session

        globals().update({public: getattr(session, public) for public in __all__})
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
