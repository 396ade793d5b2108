"""What the accuracy suite searches: simulated servers, each with a workload, five SLAs and two variables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from redline.experiment.workloads import parse_workload
from redline.model import LOAD_LIMITS, Goal, Sla, Variable, Workload
from redline.simulate.profiles import PROFILES, Profile
from redline.simulate.truth import Truth, true_capacity
from redline.sla import parse_sla

TRUTHS = Path(__file__).with_name("truths.json")  # worked out once: a few minutes of two cores
WORKLOADS = {
    "tiny": "random:in=64,out=16",
    "demo": "random:in=128,out=24",
    "demo-kv": "random:in=128,out=24",
    "vllm-cpu": "random:in=32,out=16",
    "laptop": "chat",
    "8b-chat": "chat",
    "8b-slots": "chat",
    "8b-kv": "chat",
    "8b-noisy": "chat:arrivals=gamma,burstiness=0.5",
    "moe": "summarize",
    "70b": "rag",
    "70b-reasoning": "reasoning",
    "8b-drift": "chat",
    "8b-stalls": "chat",
}
ASIDE = ("8b-drift", "8b-stalls")  # what should be noticed rather than measured; not in the averages
SETS = ("ttft99", "chat", "e2e99", "means", "goodput")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One question with a known answer."""

    profile: str
    workload: str
    sla_set: str
    sla: str
    by: Variable

    @property
    def server(self) -> Profile:
        return PROFILES[self.profile.removesuffix("-reasoning")]

    @property
    def load(self) -> Workload:
        return parse_workload(self.workload)

    @property
    def bounds(self) -> Sla:
        return parse_sla(f"{self.sla_set}: {self.sla}")

    def goal(self, precision: float = 0.05, confidence: float = 0.9) -> Goal:
        low, high = LOAD_LIMITS[self.by]
        return Goal(by=self.by, precision=precision, confidence=confidence, min_load=low, max_load=high)

    @property
    def key(self) -> str:
        what = [_told(self.server), _told(self.load), self.sla, self.by]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def cells(profiles: tuple[str, ...] = ()) -> Iterator[Cell]:
    """All of them, or those of some profiles."""
    for profile, workload in WORKLOADS.items():
        if profiles and profile not in profiles:
            continue
        for by in ("rate", "concurrency"):
            for name, text in _slas(PROFILES[profile.removesuffix("-reasoning")], parse_workload(workload)).items():
                yield Cell(profile=profile, workload=workload, sla_set=name, sla=text, by=by)


def _told(of: Profile | Workload) -> dict[str, object]:
    """What of it is not as by default: so that a new field, which changes nothing, makes no truth unknown."""
    plain = {f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(of)}
    return {name: value for name, value in asdict(of).items() if value != plain[name]}


def _slas(profile: Profile, workload: Workload) -> dict[str, str]:
    """Five SLAs, in multiples of what a lone request takes."""
    tokens = workload.prompt.mean
    ttft = profile.step_ms + profile.prefill_us * tokens / 1e3
    tpot = profile.step_ms + profile.decode_us / 1e3 + profile.kv_ns * (tokens + workload.output.mean) / 1e6
    longest = workload.output.mean * (1 + 2.5 * workload.output.cv)
    e2el = ttft + tpot * min(longest, workload.output.high)
    return {
        "ttft99": f"p99_ttft_ms<={_round(8 * ttft)}",
        "chat": f"p90_ttft_ms<={_round(5 * ttft)}, p90_tpot_ms<={_round(2.5 * tpot)}",
        "e2e99": f"p99_e2el_ms<={_round(2.5 * e2el)}",
        "means": f"mean_ttft_ms<={_round(4 * ttft)}, mean_tpot_ms<={_round(2 * tpot)}",
        "goodput": f"attainment(ttft_ms<={_round(5 * ttft)}, tpot_ms<={_round(2.5 * tpot)})>=95%",
    }


def _round(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"


def truth(cell: Cell) -> Truth:
    """The true capacity, from the file where it is known."""
    known = json.loads(TRUTHS.read_text()) if TRUTHS.exists() else {}
    if cell.key in known:
        return Truth(**known[cell.key])
    return true_capacity(cell.server, cell.load, cell.bounds, cell.by)


def keep_truths(found: dict[str, Truth]) -> None:
    """Write the truths of these keys, and forget all others."""
    TRUTHS.write_text(json.dumps({key: asdict(found[key]) for key in sorted(found)}, indent=0) + "\n")
