"""The one reducer of evidence: what an observation of a job at its provider makes of its status.

Pure, and the same for every provider. Webhooks are no evidence themselves: they make us look, so
that what counts is what the provider shows then, whatever order the news came in.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core import clock
from app.jobs.states import LIVE, TERMINAL, Cause, JobStatus, allowed
from app.providers.base import Sighting

STALE_AFTER = timedelta(minutes=10)
_S = JobStatus


@dataclass(frozen=True)
class Verdict:
    """The statuses to go through, in order; often none. `warning`: what does not fit together."""

    steps: tuple[JobStatus, ...] = ()
    warning: str | None = None


def judge(current: JobStatus, sighting: Sighting) -> Verdict:
    """Silence, old news and unknown words change nothing; an outcome stands once it is known."""
    if sighting.status is None:
        return Verdict(warning=f"The provider says {sighting.raw!r}, which is not known here.")
    seen = JobStatus(sighting.status)
    if seen is current:
        return Verdict()
    if current in TERMINAL:
        if seen in TERMINAL:
            return Verdict(
                warning=f"The provider now says {seen}, after {current}. The ledger keeps what "
                "came first; an admin can correct it."
            )
        return Verdict()
    if allowed(current, seen, Cause.EVIDENCE):
        return Verdict((seen,))
    if current is _S.PAUSED and seen in (_S.RUNNING, _S.SUCCEEDED):
        return Verdict((_S.QUEUED, seen))
    return Verdict()  # it was further before: late news, or a provider that goes back to the queue


def is_stale(status: JobStatus, newest: datetime | None) -> bool:
    """Whether a job at a provider has been silent for too long."""
    return status in LIVE and newest is not None and clock.now() - newest > STALE_AFTER


def ago(moment: datetime) -> str:
    """How long ago, for people."""
    minutes = max(0, int((clock.now() - moment).total_seconds() // 60))
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h"
