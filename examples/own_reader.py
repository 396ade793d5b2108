"""What reads the file of own_client.py: reader = "own_reader:read", with this folder on the PYTHONPATH."""

import json
from pathlib import Path

from redline.bench import Asked, Reading, Request, reading_of


def read(path: Path) -> Reading:
    """Every request: when it was due, sent, answered first and last, and its tokens."""
    data = json.loads(path.read_text())
    requests = [
        Request(due_s=due, sent_s=sent, first_s=first, end_s=end, tokens_out=tokens)
        for due, sent, first, end, tokens in data["requests"]
    ]
    return reading_of(requests, Asked(rate=data["rate"], exact_rate=True), str(path), has_gaps=False)
