"""The command line: every end of it is an exit code, and every error one paragraph."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from redline.cli.bench import bench
from redline.cli.commands import State, cli
from redline.cli.importing import import_command
from redline.cli.serve_sla import serve_sla

cli.add_command(bench)
cli.add_command(serve_sla)
cli.add_command(import_command)

_INTERRUPTED = 130
_INDENT = "  "


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The whole program: every error becomes one paragraph on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a foreign name must not end a search on an ASCII terminal
    state = State(sys.argv[1:] if argv is None else argv)
    code = _exit_code(state)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
    sys.exit(code)


def _exit_code(state: State) -> int:
    try:
        return int(cli.main(args=state.argv, prog_name="redline", obj=state, standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "redline"
        return _complain(f"{error.format_message()} See: {where} --help", 2)
    except click.ClickException as error:
        return _complain(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt):
        return _stopped(state)
    except BrokenPipeError:
        return 1
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a message
        return _failed(state, error)


def _failed(state: State, error: Exception) -> int:
    from redline.model import RedlineError, UsageError

    if isinstance(error, RedlineError):
        return _complain(str(error), 2 if isinstance(error, UsageError) else 1)
    kept = "; what was measured before is kept" if state.directory is not None else ""
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return _complain(f"{error.strerror or error}{where}{kept}", 1)
    return _complain(f"this is a bug in Redline: {type(error).__name__}: {error}; {_traceback(error, state)}{kept}", 1)


def _complain(message: str, code: int) -> int:
    click.echo(f"redline: {message.strip()}", err=True)
    return code


def _stopped(state: State) -> int:
    directory = state.directory
    if directory is None or not directory.is_dir():
        click.echo("\nstopped", err=True)
        return _INTERRUPTED
    from redline.experiment.redaction import redact

    argv = redact(state.argv)
    hidden = " (put what is hidden as *** back in)" if argv != state.argv else ""
    kept = f"\nstopped; the finished trials are kept in {directory}. To continue{hidden}:"
    click.echo(f"{kept}\n{_INDENT}{shlex.join(['redline', *argv])}", err=True)
    return _INTERRUPTED


def _traceback(error: Exception, state: State) -> str:
    """Write it to a log beside the measurements, or where temporary files go; where that is, in words."""
    import tempfile
    import traceback

    directory = state.directory
    folder = directory / "logs" if directory is not None and directory.is_dir() else Path(tempfile.gettempdir())
    try:
        folder.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="redline-error-", suffix=".log", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
    except OSError as unwritable:
        return f"its traceback could not be written ({unwritable.strerror})"
    return f"please report it with the traceback in {name}"
