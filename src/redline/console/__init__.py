"""What the user sees: live progress, answers, trials and plans."""

from redline.console.live import Console

__all__ = ["Console"]
