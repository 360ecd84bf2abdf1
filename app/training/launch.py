"""`python -m app.training.launch N CONFIG.json`: the same as `python -m app.training`, in N
processes of this machine that share the work.

The first of them reports, on standard output. SIGTERM is passed on to all; how long they may then
take is for whoever sent it to judge.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from app.core.parent import die_with_parent
from app.training.report import EXIT_STOPPED, Reporter, Stopped

_PATIENCE = 86_400  # seconds; the supervisor has its own


def main(processes: str, config: str) -> None:
    die_with_parent()
    signal.signal(signal.SIGTERM, _leave_at_once)
    from torch.distributed.run import main as torchrun

    torchrun(
        [
            "--standalone",
            "--local-addr=127.0.0.1",
            f"--nproc-per-node={processes}",
            f"--shutdown-timeout={_PATIENCE}",
            f"--log-dir={Path(config).parent / 'launcher'}",  # else one in /tmp, which stays
            "--module",
            "app.training",
            config,
        ]
    )


def _leave_at_once(*_: Any) -> None:
    """Until there are processes to pass the signal on to, there is nothing to save."""
    Reporter(sys.stdout.fileno()).send(Stopped(step=0, checkpoint_path=None))
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    main(*sys.argv[1:])
