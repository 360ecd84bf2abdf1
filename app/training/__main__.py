"""`python -m app.training CONFIG.json`: one attempt at one job, from start to its end.

Knows no database. Reports leave as JSON lines (see `report.py`), SIGTERM asks it to checkpoint
and leave, and the exit status is 0 finished, 1 failed, 3 stopped (0 for one of several processes:
their launcher takes anything else for a crash).
"""

import gc
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.core.parent import die_with_parent
from app.graders.protocol import ModelEndpoint
from app.training import group
from app.training.config import CONFIG, MODEL_ENDPOINT, TrainingConfig
from app.training.environment import use_one_gpu
from app.training.errors import TrainingFailed, TrainingStopped
from app.training.report import EXIT_FAILED, EXIT_FINISHED, EXIT_STOPPED, Failed, Reporter
from app.training.run import Run, StopRequest

# Imported by name when needed: each loads torch, which takes seconds and hundreds of megabytes.
METHODS = {
    "supervised": "app.training.sft",
    "dpo": "app.training.dpo",
    "reinforcement": "app.training.grpo",
}


def main(arguments: list[str]) -> int:
    die_with_parent()
    reporter = Reporter.claim(silent=not group.is_first())
    stop = StopRequest(reporter)
    stop.listen()
    try:
        run = Run(_read_config(arguments), reporter, stop)
        run.check_inputs()
        run.config.run_dir.mkdir(parents=True, exist_ok=True)
        use_one_gpu()
        _libraries(run.config.method).train(run)
    except TrainingStopped:
        run.stopped()
        group.wait()
        group.leave(EXIT_FINISHED)
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001
        # The last line of defence: whatever happened, the supervisor gets one sentence about it.
        traceback.print_exc()
        if not group.is_broken_by(error):  # else no word: the run goes on from its checkpoint
            reporter.send(_failure(error))
        group.leave(EXIT_FAILED)
        return EXIT_FAILED
    group.wait()
    group.leave(EXIT_FINISHED)
    return EXIT_FINISHED


def _libraries(method: str) -> Any:
    """The module of a method, with all that it loads: most of the time until the first step.

    A quarter of that is saved: nothing of it is garbage, which need not be looked for, and W&B is
    not for this process (see `app.tracking`), though TRL would load it wherever it is installed.
    """
    sys.modules["wandb"] = None  # type: ignore[assignment]  # Python's mark of what is not there
    gc.disable()
    module = importlib.import_module(METHODS[method])
    gc.freeze()
    gc.enable()
    return module


def _read_config(arguments: list[str]) -> TrainingConfig:
    if len(arguments) != 1:
        raise TrainingFailed("invalid_config", "Usage: python -m app.training CONFIG.json")
    # Taken out, so that nothing which is started from here inherits it.
    endpoint = os.environ.pop(MODEL_ENDPOINT, None)
    try:
        config = CONFIG.validate_json(Path(arguments[0]).read_bytes())
    except OSError as error:
        raise TrainingFailed("invalid_config", f"{arguments[0]} cannot be read.") from error
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]][1:]  # without the method
        if path[:1] == ["hyperparameters"]:
            param = path[1] if len(path) > 1 else None
            raise TrainingFailed(
                "invalid_hyperparameters", _sentence(first["msg"]), param
            ) from error
        where = ".".join(path) or None
        raise TrainingFailed("invalid_config", _sentence(first["msg"]), where) from error
    if endpoint is None:
        return config
    given = ModelEndpoint.model_validate_json(endpoint)
    return config.model_copy(update={"model_endpoint": given})


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ").rstrip(".") + "."


def _failure(error: Exception) -> Failed:
    if isinstance(error, TrainingFailed):
        return Failed(code=error.code, message=error.message, param=error.param)
    if _is_out_of_memory(error):
        return Failed(
            code="out_of_memory",
            message="The machine ran out of memory: lower batch_size or max_length.",
            param="batch_size",
        )
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return Failed(code="internal_error", message=f"Training ended unexpectedly: {text[:300]}")


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "out of memory" in text
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
