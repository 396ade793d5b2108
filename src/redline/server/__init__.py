"""Launch a server or attach to one, and know when it is ready, idle, and gone."""

from redline.server.lifecycle import Note, Server, attach, launch

__all__ = ["Note", "Server", "attach", "launch"]
