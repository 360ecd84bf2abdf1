"""Rows that decode together, joining and leaving at any step.

The rows share one key-value cache, each flush with its right edge: a shorter row has blank columns
at its left, hidden by the mask, and keeps its own positions. So a row's answer does not depend on
its neighbours, apart from the order of floating-point sums.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

from app.serving.jobs import Delta, Job
from app.serving.model import ServedModel, joined, keep_rows
from app.serving.protocol import ApiError, FinishReason
from app.serving.sampling import TextStream, choose


@dataclass(eq=False)
class Row:
    job: Job
    index: int
    length: int  # tokens in the cache that are this row's own
    text: TextStream
    generator: Any
    written: list[int] = field(default_factory=list)
    finished: FinishReason | None = None

    @property
    def key(self) -> str:
        return self.job.key


@dataclass(eq=False)
class Prefill:
    """A prompt on its way in, piece by piece, in a cache of its own."""

    job: Job
    cache: Any
    done: int = 0


class Batch:
    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._cache: Any = None
        self.rows: list[Row] = []

    def prefill(self, prefill: Prefill, budget: int) -> int:
        """Reads at most `budget` prompt tokens; at the last one the rows join. Returns the number
        of tokens read. One prompt at a time: padding several to one length would waste more than
        it saves on a CPU, and a failure stays with its own request."""
        job = prefill.job
        piece = job.prompt[prefill.done : prefill.done + budget]
        logits = self._model.forward([piece], [prefill.done], prefill.cache, [job.key])
        prefill.done += len(piece)
        if prefill.done == len(job.prompt):
            rows = [self._row(job, index) for index in range(job.n)]
            prefill.cache.batch_repeat_interleave(job.n)
            self._advance(rows, logits.repeat_interleave(job.n, dim=0))
            alive = [at for at, row in enumerate(rows) if row.finished is None]
            if alive:
                self._join([rows[at] for at in alive], prefill.cache, alive, len(rows))
        return len(piece)

    def step(self) -> None:
        """One more token for every row."""
        self._drop([row for row in self.rows if row.job.closed])
        if not self.rows:
            return
        width = self._cache.get_seq_length()
        logits = self._model.forward(
            [[row.written[-1]] for row in self.rows],
            [row.length for row in self.rows],
            self._cache,
            [row.key for row in self.rows],
            [width - row.length for row in self.rows],
        )
        for row in self.rows:
            row.length += 1
        self._advance(self.rows, logits)
        self._drop([row for row in self.rows if row.finished or row.job.closed])

    def clear(self) -> None:
        self.rows, self._cache = [], None

    def _row(self, job: Job, index: int) -> Row:
        generator = torch.Generator(self._model.device)
        if job.sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed((job.sampling.seed + index) % 2**63)
        text = TextStream(self._model.decode, job.sampling.stop)
        return Row(job, index, len(job.prompt), text, generator)

    def _advance(self, rows: list[Row], logits: Any) -> None:
        broken = logits.isnan().any(-1).tolist()
        best = logits.argmax(-1).tolist()
        for at, row in enumerate(rows):
            if row.job.closed:
                continue
            if broken[at]:  # diverged weights are their own request's trouble, not the batch's
                row.job.fail(ApiError(500, f"model {row.job.model!r} produced NaN"))
                continue
            rule = row.job.sampling
            token = (
                best[at] if rule.is_plain else choose(logits[at], rule, row.generator, row.written)
            )
            self._write(row, token)

    def _write(self, row: Row, token: int) -> None:
        rule = row.job.sampling
        row.written.append(token)
        text = ""
        if token in self._model.ends and not rule.ignore_eos:
            row.finished = "stop"
        else:
            text = row.text.push(token)
            if row.text.stopped:
                row.finished = "stop"
            elif len(row.written) >= rule.max_tokens:
                row.finished = "length"
        if row.finished:
            text += row.text.finish()
            if row.text.stopped:
                row.finished = "stop"
        if text or row.finished:
            row.job.send(Delta(row.index, text, row.finished, len(row.written)))

    def _join(self, rows: list[Row], cache: Any, alive: list[int], total: int) -> None:
        if len(alive) < total:
            keep_rows(cache, alive, 0)
        self._cache = joined(self._cache, cache) if self.rows else cache
        self.rows += rows
        order = sorted(range(len(self.rows)), key=lambda at: self.rows[at].key)
        if order != list(range(len(order))):  # rows of one adapter side by side: one product each
            keep_rows(self._cache, order, 0)
            self.rows = [self.rows[at] for at in order]

    def _drop(self, leaving: list[Row]) -> None:
        if not leaving:
            return
        staying = [at for at, row in enumerate(self.rows) if row not in leaving]
        if not staying:
            self.clear()
            return
        longest = max(self.rows[at].length for at in staying)
        keep_rows(self._cache, staying, self._cache.get_seq_length() - longest)
        self.rows = [self.rows[at] for at in staying]
