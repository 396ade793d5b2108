"""Redline: how much load an LLM server carries before it breaks its promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redline.api import find, open_experiment, run

__all__ = ["find", "open_experiment", "run"]


def __getattr__(name: str) -> object:
    """Import on first use: `redline --help` must not load numpy."""
    if name in __all__:
        from redline import api

        globals().update({public: getattr(api, public) for public in __all__})
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
