"""When the load worker may look at its sockets once a millisecond, for half the CPU per token."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from redline.loadgen.flights import Flight

NAP_NS = 1_000_000
_FAR_APART_US, _LONG_NS = 10_000, 200_000_000
_SOME, _LAST = 64, 16


def may_nap(in_flight: Collection[Flight], ended: int, for_ns: int) -> bool:
    """Whether reading a millisecond later changes nothing, where the kernel stamps what arrives.

    Tokens of a stream must be so far apart that none overtakes another's stamp, and requests on average so long that
    it is nothing to them when somebody waits for their end: `ended` of them in `for_ns`, 0 where nobody does.
    """
    if len(in_flight) * for_ns < _LONG_NS * ended:
        return False
    gaps_us = sorted(us for flight in islice(in_flight, _SOME) for us in flight.response.gaps_us[-_LAST:])
    return bool(gaps_us) and gaps_us[len(gaps_us) // 10] >= _FAR_APART_US
