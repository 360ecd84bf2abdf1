"""`python -m app.serving`: reads the command line, guards the process's life, runs the server."""

import argparse
import ctypes
import logging
import os
import signal
import sys
from types import FrameType

import uvicorn

from app.serving.engine import Engine
from app.serving.http import create_app
from app.serving.launch import API_KEY, default_threads

PR_SET_PDEATHSIG = 1


def main() -> None:
    options = _options()
    _die_with_parent(options.parent_pid)
    # The second delivery, after uvicorn has closed its connections, and any before it started.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    api_key = os.environ.get(API_KEY, "")
    if not api_key:
        sys.exit(f"{API_KEY} is not set: this server does not run without a key")
    engine = Engine(
        options.model,
        options.served_model_name,
        adapters=dict(options.adapter),
        threads=options.threads,
        dtype=options.dtype,
        max_model_len=options.max_model_len,
        max_rows=options.max_num_seqs,
        max_waiting=options.max_waiting,
        on_death=lambda: os._exit(1),
    )
    config = uvicorn.Config(
        create_app(engine, api_key),
        host=options.host,
        port=options.port,
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    # Bound before the model loads: a taken port is told at once, and /health says 503 meanwhile.
    socket = config.bind_socket()
    code = 1
    try:
        uvicorn.Server(config).run(sockets=[socket])
        code = 0
    finally:
        os._exit(code)  # the model thread may be deep inside torch: do not wait for it


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.serving")
    parser.add_argument("--model", required=True, help="folder of the base (or merged) model")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--adapter", type=_pair, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--max-model-len", type=int, help="bounds memory per row")
    parser.add_argument("--max-num-seqs", type=int, default=8, help="rows decoded together")
    parser.add_argument("--max-waiting", type=int, default=64, help="requests queued before 429")
    parser.add_argument("--parent-pid", type=int, help="leave if this is not the parent")
    return parser.parse_args()


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError("must be NAME=PATH")
    return name, path


def _die_with_parent(parent: int | None) -> None:
    """Linux kills us when the thread that started us ends. The parent may already have died
    before the request took effect, which only the pid it gave us can tell."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        sys.exit("the parent is gone")


def _leave(_signal: int, _frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == "__main__":
    main()
