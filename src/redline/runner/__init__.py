"""Run jobs: the loop, and the laboratory that it works in."""
