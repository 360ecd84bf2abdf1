"""The words for what happens. Past tense or a noun, dotted; the same in the log and in the API."""

from enum import StrEnum


class EventType(StrEnum):
    JOB_STATUS = "job.status"
    JOB_REQUESTED = "job.requested"
    JOB_DELETED = "job.deleted"
    ATTEMPT_STARTED = "attempt.started"
    ATTEMPT_ENDED = "attempt.ended"
    METRICS = "metrics"
    CHECKPOINT = "checkpoint"
    SCORE = "score"
    MESSAGE = "message"
    MODEL = "model.created"
    RESULT = "result.created"
    DEPLOYMENT_STATUS = "deployment.status"
    MODEL_SUNSET = "model.sunset"
    GRADER_RUN = "grader_run.status"
