"""`python -m app.tracking`: one run at Weights & Biases, told by JSON lines on standard input."""

import os
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from app.core.parent import die_with_parent
from app.tracking.protocol import INPUT, Begin, End, Output, Point, Shown, Trouble


def main() -> int:
    die_with_parent()
    said = os.dup(1)
    os.dup2(2, 1)  # the library prints whenever it likes

    def tell(line: Output) -> None:
        os.write(said, line.model_dump_json().encode() + b"\n")

    begin = Begin.model_validate_json(sys.stdin.buffer.readline())
    if begin.api_key:
        os.environ["WANDB_API_KEY"] = begin.api_key.get_secret_value()
    try:
        run = _start(begin)
        if run.url:
            tell(Shown(url=run.url))
        run.finish(exit_code=_follow(run, sys.stdin.buffer))
    except ImportError:
        tell(Trouble(message="the worker lacks it: pip install 'luthier[wandb]'"))
    except Exception as error:  # noqa: BLE001
        # Whatever it was, the worker gets one sentence about it.
        traceback.print_exc()
        tell(Trouble(message=_sentence(error, begin)))
    else:
        return 0
    return 1


def _start(begin: Begin) -> Any:
    import wandb  # noqa: PLC0415 - an extra, and slow to import

    run = wandb.init(
        project=begin.project,
        entity=begin.entity,
        name=begin.name,
        tags=begin.tags,
        id=begin.run_id,
        resume="allow",
        config=begin.config,
        dir=begin.folder,
        mode=begin.mode,
        # Of this machine nothing is told.
        settings=wandb.Settings(
            init_timeout=begin.patience,
            console="off",
            silent=True,
            host="luthier",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )
    # A crash rewinds the steps, and its own counter knows no way back.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def _follow(run: Any, lines: Iterable[bytes]) -> int:
    """Pass points on until the end; returns the run's exit code."""
    for line in lines:
        match INPUT.validate_json(line):
            case Point(step=step, values=values):
                known = {name: value for name, value in values.items() if value is not None}
                run.log({"step": step, **known})
            case End(failed=failed):
                return 1 if failed else 0
    return 1


def _sentence(error: Exception, begin: Begin) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0][:300]
    return text.replace(begin.api_key.get_secret_value(), "***") if begin.api_key else text


if __name__ == "__main__":
    sys.exit(main())
