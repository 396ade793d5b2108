"""External benchmark commands: run one, and read the result file that it leaves."""

from redline.bench.command import CommandSession
from redline.bench.readers import read, read_runs, reader_of
from redline.bench.reading import Reading, ResultError, knows
from redline.bench.requests import Asked, Request, reading_of

__all__ = [
    "Asked",
    "CommandSession",
    "Reading",
    "Request",
    "ResultError",
    "knows",
    "read",
    "read_runs",
    "reader_of",
    "reading_of",
]
