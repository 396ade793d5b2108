"""An experiment as one self-contained HTML page, derived from what is stored."""

from __future__ import annotations

import os
from pathlib import Path

from redline.model import RedlineError
from redline.report.data import ReportCase, ReportData
from redline.report.page import render

__all__ = ["ReportCase", "ReportData", "render", "write_report"]


def write_report(data: ReportData, path: Path) -> None:
    """Write the page, or leave what was there as it was."""
    text = render(data)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RedlineError(f"cannot write {path}: {error.strerror}; give another place with -o FILE.html") from error
