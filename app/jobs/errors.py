"""What can be wrong with a job, or with what is asked of it."""

from app.core.errors import Conflict, Invalid, Limited, NotFound


class JobNotFound(NotFound):
    code = "JOB_NOT_FOUND"


class CheckpointNotFound(NotFound):
    code = "CHECKPOINT_NOT_FOUND"


class CheckpointInUse(Conflict):
    code = "CHECKPOINT_IN_USE"


class JobInputInvalid(Invalid):
    code = "INVALID_INPUT"


class HyperparameterInvalid(Invalid):
    code = "HYPERPARAMETER_INVALID"


class JobStillLive(Conflict):
    code = "JOB_STILL_LIVE"


class MetadataTooLarge(Limited):
    code = "METADATA_TOO_LARGE"
