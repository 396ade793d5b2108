"""Which start of each running server this is."""

from __future__ import annotations

from collections.abc import Sequence

from redline.model import RedlineError, ServerConfig, UsageError
from redline.server.lifecycle import attach


def starts_of(servers: Sequence[ServerConfig]) -> tuple[dict[str, str], RedlineError | None]:
    """The start of each server that runs already, by its name; and why one does not answer."""
    starts: dict[str, str] = {}
    for config in servers:
        if config.attached:
            try:
                with attach(config) as server:
                    starts[config.name] = server.start_id
            except UsageError:
                raise
            except RedlineError as error:
                return starts, error
    return starts, None
