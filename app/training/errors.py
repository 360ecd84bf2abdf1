"""The expected ways a training process fails; each becomes one `failed` report."""

from typing import Literal

FailureCode = Literal[
    "invalid_config",
    "invalid_hyperparameters",
    "invalid_training_file",
    "invalid_validation_file",
    "invalid_evaluation_file",
    "data_changed",
    "base_model_unavailable",
    "invalid_grader",
    "grader_failed",
    "checkpoint_corrupt",
    "checkpoint_mismatch",
    "not_enough_memory",
    "out_of_memory",
    "internal_error",
]


class TrainingFailed(Exception):
    """Says in one sentence, to the customer, why the job cannot go on."""

    def __init__(self, code: FailureCode, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code: FailureCode = code
        self.message = message
        self.param = param


class TrainingOver(Exception):
    """Nothing is left to train: a resumed run had come to its end before."""


class TrainingStopped(Exception):
    """A stop was asked for and obeyed at a point where nothing is lost."""
