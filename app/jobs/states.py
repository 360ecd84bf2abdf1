"""The life of a job, as one readable table; the database holds the same and refuses the rest."""

from enum import StrEnum

from app.core.errors import Conflict


class JobStatus(StrEnum):
    PENDING = "pending"
    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class RequestedAction(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"


class Cause(StrEnum):
    """Who moves the job. EVIDENCE is the work itself and what its owner asked of it."""

    EVIDENCE = "evidence"
    RESTART = "restart"
    CORRECTION = "correction"


_S = JobStatus
TERMINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})
LIVE = frozenset(_S) - TERMINAL

# Evidence may skip states (a webhook was lost, a poll saw only the newest), never go back.
_EVIDENCE: dict[JobStatus, frozenset[JobStatus]] = {
    _S.PENDING: frozenset({_S.VALIDATING, _S.QUEUED, _S.RUNNING, _S.PAUSED}) | TERMINAL,
    _S.VALIDATING: frozenset({_S.QUEUED, _S.RUNNING, _S.PAUSED}) | TERMINAL,
    _S.QUEUED: frozenset({_S.RUNNING, _S.PAUSED}) | TERMINAL,
    _S.RUNNING: frozenset({_S.PAUSED}) | TERMINAL,
    _S.PAUSED: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}


def allowed(before: JobStatus, after: JobStatus, cause: Cause) -> bool:
    if cause is Cause.EVIDENCE:
        return after in _EVIDENCE[before]
    if cause is Cause.RESTART:
        return before in {_S.FAILED, _S.CANCELLED} and after is _S.QUEUED
    return before in TERMINAL and after in TERMINAL and before is not after


def table() -> list[tuple[str, str, str]]:
    """Every allowed (before, after, cause), as the database stores it."""
    return [
        (before.value, after.value, cause.value)
        for before in JobStatus
        for after in JobStatus
        for cause in Cause
        if allowed(before, after, cause)
    ]


class TransitionRefused(Conflict):
    """`detail` carries `before`, `after` and, where there is one, what to do instead."""

    code = "INVALID_TRANSITION"
