"""The model thread: it alone touches the weights, so nothing about them needs a lock.

Each turn it runs pending adapter changes, reads some prompt tokens, and takes one decoding step
for every row. The bound on prompt tokens per turn keeps running answers flowing while a long
prompt comes in.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from app.serving.jobs import Adapter, Delta, Job
from app.serving.protocol import ApiError, Message, ModelCard
from app.serving.sampling import Sampling

if TYPE_CHECKING:
    from app.serving.batch import Batch, Prefill
    from app.serving.model import ServedModel

log = logging.getLogger(__name__)

PROMPT_TOKENS_PER_TURN = 512
CRASHES_IN_A_ROW = 3  # then the process is past mending (a poisoned GPU context, say)
SILENCE = 120.0  # seconds without a turn after which the loop counts as hung


class Engine:
    def __init__(
        self,
        path: str,
        name: str,
        *,
        adapters: Mapping[str, str],
        threads: int,
        dtype: str = "auto",
        max_model_len: int | None = None,
        max_rows: int = 8,
        max_waiting: int = 64,
        on_death: Callable[[], None],
    ) -> None:
        self.name = name
        self.path = path
        self.max_rows = max_rows
        self.max_waiting = max_waiting
        self.created = int(time.time())
        self._initial = dict(adapters)
        self._threads = threads
        self._dtype = dtype
        self._max_model_len = max_model_len
        self._on_death = on_death
        self._model: ServedModel | None = None
        self._batch: Batch
        self._no_gradients: Callable[[], AbstractContextManager[None]]
        self._prefill: Prefill | None = None
        self._loop: asyncio.AbstractEventLoop
        self._wake = threading.Condition()  # guards the five below
        self._adapters: dict[str, Adapter] = {}
        self._retired: list[Adapter] = []
        self._waiting: deque[Job] = deque()
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._stopping = False
        self._turned = time.monotonic()
        self._crashes = 0
        self._outbox: list[tuple[Job, Delta | ApiError]] = []
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    # -- called from the event loop --------------------------------------------------------------

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()

    @property
    def healthy(self) -> bool:
        recent = time.monotonic() - self._turned < SILENCE
        return self._model is not None and self._thread.is_alive() and recent

    @property
    def model(self) -> "ServedModel":
        if self._model is None or not self._thread.is_alive():
            raise ApiError(503, "the model is still loading", code="loading", retry_after=2)
        return self._model

    def cards(self) -> list[ModelCard]:
        limit = self.model.max_len
        base = ModelCard(id=self.name, created=self.created, root=self.path, max_model_len=limit)
        return [base] + [
            ModelCard(id=one.name, created=one.created, root=one.path, parent=self.name)
            for one in list(self._adapters.values())
        ]

    def find(self, name: str) -> Adapter | None:
        """None means the base model."""
        adapter = self._adapters.get(name)
        if adapter is None and name != self.name:
            served = ", ".join([self.name, *self._adapters])
            message = f"The model {name!r} does not exist. Served here: {served}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return adapter

    async def render(self, messages: list[Message]) -> list[int]:
        return await asyncio.to_thread(self.model.render, messages)

    def submit(self, name: str, prompt: list[int], sampling: Sampling, n: int) -> Job:
        with self._wake:
            adapter = self.find(name)
            if len(self._waiting) >= self.max_waiting:
                raise ApiError(429, "the queue is full", code="queue_full", retry_after=1)
            job = Job(name, prompt, adapter, sampling, n, self._post)
            if adapter:
                adapter.users += 1
            self._waiting.append(job)
            self._wake.notify()
        return job

    def release(self, job: Job) -> None:
        """Once per job, when its client has its answer or has gone: frees its rows."""
        with self._wake:
            job.closed = True
            if job.adapter:
                job.adapter.users -= 1
            if job in self._waiting:
                self._waiting.remove(job)
            self._wake.notify()

    async def load_adapter(self, name: str, path: str) -> None:
        await self._in_model_thread(lambda: self._load(name, path))

    async def unload_adapter(self, name: str) -> None:
        """The name is free at once; the weights go when the last job using them is over."""
        with self._wake:
            if name not in self._adapters:
                message = f"The lora adapter {name!r} cannot be found."
                raise ApiError(404, message, param="lora_name", code="adapter_not_found")
            self._retired.append(self._adapters.pop(name))
            self._wake.notify()

    async def _in_model_thread(self, command: Callable[[], None]) -> None:
        future: Future[None] = Future()
        with self._wake:
            self._commands.append((command, future))
            self._wake.notify()
        await asyncio.wrap_future(future)

    # -- the model thread ------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._open()
            while self._wait_for_work():
                self._turn()
        except BaseException:  # whatever it was, a server without its loop must not look alive
            log.critical("the model thread died", exc_info=True)
            self._on_death()

    def _open(self) -> None:
        import torch

        from app.serving.batch import Batch
        from app.serving.model import ServedModel

        torch.set_num_threads(self._threads)
        model = ServedModel(self.path, self._dtype, self._max_model_len)
        self._batch = Batch(model)
        self._no_gradients = torch.inference_mode
        for name, path in self._initial.items():
            self._load(name, path, model)
        self._turned = time.monotonic()
        self._model = model
        log.info("serving %s with %d adapters", self.name, len(self._adapters))

    def _wait_for_work(self) -> bool:
        with self._wake:
            while not self._stopping:
                self._turned = time.monotonic()
                gone = any(not one.users for one in self._retired)
                if self._commands or self._waiting or self._prefill or self._batch.rows or gone:
                    return True
                self._wake.wait(timeout=1)
            return False

    def _turn(self) -> None:
        self._run_commands()
        self._drop_retired()
        try:
            with self._no_gradients():
                self._read_prompts()
                if self._batch.rows:
                    self._batch.step()
                    self._crashes = 0
        except Exception:
            log.exception("a decoding step failed")
            self._crashes += 1
            for row in self._batch.rows:
                row.job.fail(ApiError(500, "generation failed", code="generation_failed"))
            self._batch.clear()
            if self._crashes >= CRASHES_IN_A_ROW:
                self._flush()
                raise
        self._flush()

    def _read_prompts(self) -> None:
        budget = PROMPT_TOKENS_PER_TURN
        while budget > 0:
            if self._prefill is None and not self._admit():
                return
            prefill = self._prefill
            if prefill is None or prefill.job.closed:
                self._prefill = None
                continue
            try:
                budget -= self._batch.prefill(prefill, budget)
            except Exception:
                log.exception("reading a prompt failed")
                prefill.job.fail(ApiError(500, "generation failed", code="generation_failed"))
                self._prefill = None
                continue
            if prefill.done == len(prefill.job.prompt):
                self._prefill = None
                self._flush()

    def _admit(self) -> bool:
        """First come, first served, also when a smaller request behind would fit."""
        from transformers import DynamicCache

        from app.serving.batch import Prefill

        with self._wake:
            taken = sum(not row.job.closed for row in self._batch.rows)
            if not self._waiting or taken + self._waiting[0].n > self.max_rows:
                return False
            self._prefill = Prefill(self._waiting.popleft(), DynamicCache())
        return True

    def _run_commands(self) -> None:
        while self._commands:
            command, future = self._commands.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                command()
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                future.set_exception(error)
            else:
                future.set_result(None)

    def _load(self, name: str, path: str, model: "ServedModel | None" = None) -> None:
        if name in self._adapters or name == self.name:
            message = f"The lora adapter {name!r} has already been loaded."
            raise ApiError(400, message, param="lora_name", code="already_loaded")
        try:
            key = (model or self.model).load_adapter(path)
        except FileNotFoundError as error:
            raise ApiError(404, str(error), param="lora_path", code="adapter_not_found") from error
        except Exception as error:
            raise ApiError(400, str(error), param="lora_path", code="bad_adapter") from error
        with self._wake:
            self._adapters[name] = Adapter(name, path, key, int(time.time()))

    def _drop_retired(self) -> None:
        with self._wake:
            gone = [one for one in self._retired if not one.users]
            self._retired = [one for one in self._retired if one.users]
        for one in gone:
            self.model.drop_adapter(one.key)

    def _post(self, job: Job, event: Delta | ApiError) -> None:
        self._outbox.append((job, event))

    def _flush(self) -> None:
        """One wake-up of the event loop per turn, however many rows spoke."""
        events, self._outbox = self._outbox, []
        if events:
            self._loop.call_soon_threadsafe(_deliver, events)


def _deliver(events: list[tuple[Job, Delta | ApiError]]) -> None:
    for job, event in events:
        job.inbox.put_nowait(event)
