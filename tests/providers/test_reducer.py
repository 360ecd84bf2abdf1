"""The reducer of evidence: what counts is what is true, not when it was heard."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.core import clock
from app.jobs.evidence import is_stale, judge
from app.jobs.states import TERMINAL, Cause, JobStatus, allowed
from app.providers.base import Sighting, Status

LIFE = [Status.PENDING, Status.VALIDATING, Status.QUEUED, Status.RUNNING]
ENDS = [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED]


def told(current: JobStatus, heard: list[Status | None]) -> JobStatus:
    """The status after this evidence, each move checked against the table."""
    for status in heard:
        for step in judge(current, Sighting("job", str(status or "odd"), status)).steps:
            assert allowed(current, step, Cause.EVIDENCE)
            current = step
    return current


@given(end=st.sampled_from(ENDS), data=st.data())
def test_in_any_order_with_repeats_and_nonsense_the_end_is_the_same(
    end: Status, data: st.DataObject
) -> None:
    """A finished job has one end, whatever else was heard of it, before or after."""
    heard = data.draw(st.lists(st.sampled_from([*LIFE, end, None])))
    heard.insert(data.draw(st.integers(0, len(heard))), end)
    assert told(JobStatus.PENDING, heard) == JobStatus(end)


@given(data=st.data())
def test_of_a_living_job_the_furthest_that_was_heard_counts(data: st.DataObject) -> None:
    heard = data.draw(st.lists(st.sampled_from([*LIFE, None]), min_size=1))
    shuffled = data.draw(st.permutations(heard))
    assert told(JobStatus.PENDING, heard) == told(JobStatus.PENDING, list(shuffled))


@given(st.sampled_from(list(JobStatus)), st.sampled_from(list(Status)))
def test_no_evidence_is_ever_a_forbidden_move(current: JobStatus, seen: Status) -> None:
    after = told(current, [seen])
    assert after == current or after == JobStatus(seen)


@given(st.sampled_from(sorted(TERMINAL)), st.sampled_from(ENDS))
def test_an_outcome_that_contradicts_is_said_and_changes_nothing(
    current: JobStatus, seen: Status
) -> None:
    verdict = judge(current, Sighting("job", seen, seen))
    assert verdict.steps == ()
    assert (verdict.warning is not None) == (JobStatus(seen) is not current)


def test_a_paused_job_that_runs_again_was_queued_between() -> None:
    steps = judge(JobStatus.PAUSED, Sighting("job", "running", Status.RUNNING)).steps
    assert steps == (JobStatus.QUEUED, JobStatus.RUNNING)


def test_silence_makes_a_living_job_stale_and_no_other() -> None:
    long_ago = clock.now() - timedelta(minutes=11)
    assert is_stale(JobStatus.RUNNING, long_ago)
    assert not is_stale(JobStatus.RUNNING, clock.now())
    assert not is_stale(JobStatus.SUCCEEDED, long_ago)
