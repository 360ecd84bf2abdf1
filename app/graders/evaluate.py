"""Grading one sample: from a grader and a case to a reward, and what went wrong on the way."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.graders import formula, judgement, templates
from app.graders.chat import (
    Answer,
    AnswerUnreadable,
    AnswerUnusable,
    Endpoint,
    Models,
    ModelUnavailable,
)
from app.graders.embedding import EmbeddingUnavailable
from app.graders.result import GraderErrors, GraderMetadata, GraderResult, Sample, sendable
from app.graders.sandbox.box import BoxBroken, GraderRaised
from app.graders.sandbox.choice import Choice
from app.graders.sandbox.pool import Pool
from app.graders.spec import (
    Grader,
    LabelModel,
    Multi,
    Python,
    ScoreModel,
    Single,
    StringCheck,
    TextSimilarity,
)
from app.graders.text import TextMetrics, TextTooLong

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """`tenant` is an organization: what runs for one never runs for another."""

    item: dict[str, Any]
    sample: Sample
    tenant: str
    endpoint: Endpoint | None = None


@dataclass
class _Score:
    """What one grader makes of a case; with an error the value is 0."""

    value: float = 0.0
    errors: GraderErrors = field(default_factory=GraderErrors)
    notes: list[str] = field(default_factory=list)
    answer: Answer | None = None


class Evaluator:
    """`pool` is None where no sandbox was found: `choice` says why."""

    def __init__(
        self, texts: TextMetrics, models: Models, choice: Choice, pool: Pool | None
    ) -> None:
        self._texts, self._models, self._choice, self._pool = texts, models, choice, pool

    async def grade(self, grader: Grader, case: Case, seconds: float) -> GraderResult:
        """Never raises for what a grader or a sample does; that is in the result's errors."""
        started = time.perf_counter()
        try:
            async with asyncio.timeout(seconds):
                result = await self._grade(grader, case)
        except TimeoutError:
            details = f"There was no reward after {seconds:g} s."
            errors = GraderErrors(unresponsive_reward_error=True, details=details)
            result = _without_reward(grader, errors)
        except Exception as bug:
            # One strange sample must not cost the other cases, or other tenants, their rewards.
            log.exception("grading broke")
            details = f"Grading broke on this sample: {type(bug).__name__}."
            result = _without_reward(grader, GraderErrors(other_error=True, details=details))
        result.metadata.execution_time = round(time.perf_counter() - started, 6)
        return result

    async def _grade(self, grader: Grader, case: Case) -> GraderResult:
        namespaces = {"item": case.item, "sample": case.sample.namespace()}
        if isinstance(grader, Multi):
            return await self._multi(grader, case, namespaces)
        score = await self._single(grader, case, namespaces)
        result = GraderResult(reward=score.value, metadata=_metadata(grader, score))
        result.metadata.scores = {grader.name: score.value}
        threshold = getattr(grader, "pass_threshold", None)
        if threshold is not None and not score.errors.any:
            result.metadata.passed = score.value >= threshold
        if score.answer is not None:
            result.metadata.token_usage = score.answer.tokens
            result.metadata.sampled_model_name = sendable(score.answer.model)
        _count(result, grader, score)
        return result

    async def _multi(
        self, grader: Multi, case: Case, namespaces: Mapping[str, Any]
    ) -> GraderResult:
        """A part that failed fails the whole: a formula over a made-up 0 would mislead."""
        scores = await asyncio.gather(
            *(self._single(part, case, namespaces) for part in grader.graders.values())
        )
        whole = _Score()
        result = GraderResult(metadata=_metadata(grader, whole))
        for (key, part), score in zip(grader.graders.items(), scores, strict=True):
            result.sub_rewards[key] = result.metadata.scores[key] = score.value
            whole.errors.merge(score.errors)
            result.metadata.notes += score.notes
            _count(result, part, score)
        if result.model_grader_token_usage_per_model:
            usage = result.model_grader_token_usage_per_model
            result.metadata.token_usage = sum(usage.values())
        if not whole.errors.any:
            try:
                result.reward = formula.parse(grader.calculate_output)(result.sub_rewards)
            except formula.FormulaFailed as trouble:
                whole.errors.other_error, whole.errors.details = True, str(trouble)
        return result

    async def _single(self, grader: Single, case: Case, namespaces: Mapping[str, Any]) -> _Score:
        score = _Score()
        try:
            match grader:
                case StringCheck():
                    score.value = _string_check(grader, namespaces)
                case TextSimilarity():
                    await self._similarity(grader, namespaces, score)
                case Python():
                    score.value = await self._python(grader, case, namespaces)
                case ScoreModel() | LabelModel():
                    await self._model(grader, case, namespaces, score)
        except templates.ReferenceMissing as missing:
            flag = "sample_parse_error" if missing.output_json else "invalid_variable_error"
            _fail(score, flag, missing)
        except TextTooLong as trouble:
            _fail(score, "truncated_observation_error", trouble)
        except EmbeddingUnavailable as trouble:
            _fail(score, "other_error", trouble)
        except GraderRaised as trouble:
            _fail(score, "python_grader_runtime_error", trouble)
            score.errors.python_grader_runtime_error_details = score.errors.details
        except BoxBroken as broken:
            _fail(score, "python_grader_server_error", broken)
            score.errors.python_grader_server_error_type = broken.kind
        except ModelUnavailable as trouble:
            _fail(score, "model_grader_server_error", trouble)
            score.errors.model_grader_server_error_details = score.errors.details
        except AnswerUnusable as unusable:
            unreadable = isinstance(unusable, AnswerUnreadable)
            kind = "parse" if unreadable else "refusal"
            _fail(score, f"model_grader_{kind}_error", unusable)
            score.answer = unusable.answer
        return score

    async def _similarity(
        self, grader: TextSimilarity, namespaces: Mapping[str, Any], score: _Score
    ) -> None:
        text = templates.render(grader.input, namespaces)
        reference = templates.render(grader.reference, namespaces)
        score.value, score.notes = await asyncio.to_thread(
            self._texts.compare, grader.evaluation_metric, text, reference
        )

    async def _python(self, grader: Python, case: Case, namespaces: Mapping[str, Any]) -> float:
        if self._pool is None:
            raise BoxBroken("unavailable", self._choice.description)
        return await self._pool.grade(
            case.tenant, grader.source, namespaces["sample"], namespaces["item"]
        )

    async def _model(
        self,
        grader: ScoreModel | LabelModel,
        case: Case,
        namespaces: Mapping[str, Any],
        score: _Score,
    ) -> None:
        answer = score.answer = await self._models.ask(
            grader, namespaces, case.endpoint, case.tenant
        )
        if isinstance(grader, LabelModel):
            score.value = float(judgement.label(answer, grader) in grader.passing_labels)
            return
        given = judgement.number(answer)
        score.value = min(grader.range[1], max(grader.range[0], given))
        if score.value != given:
            score.notes.append(f"The model gave {given:g}, which is outside the range.")


def _string_check(grader: StringCheck, namespaces: Mapping[str, Any]) -> float:
    text = templates.render(grader.input, namespaces)
    reference = templates.render(grader.reference, namespaces)
    match grader.operation:
        case "eq":
            passed = text == reference
        case "ne":
            passed = text != reference
        case "like":
            passed = reference in text
        case "ilike":
            passed = reference.casefold() in text.casefold()
    return float(passed)


def _without_reward(grader: Grader, errors: GraderErrors) -> GraderResult:
    return GraderResult(metadata=GraderMetadata(name=grader.name, type=grader.type, errors=errors))


def _metadata(grader: Grader, score: _Score) -> GraderMetadata:
    return GraderMetadata(
        name=grader.name, type=grader.type, errors=score.errors, notes=score.notes
    )


def _count(result: GraderResult, grader: Single, score: _Score) -> None:
    if score.answer is not None and isinstance(grader, ScoreModel | LabelModel):
        usage = result.model_grader_token_usage_per_model
        usage[grader.model] = usage.get(grader.model, 0) + score.answer.tokens


def _fail(score: _Score, flag: str, trouble: Exception) -> None:
    score.value = 0.0
    setattr(score.errors, flag, True)
    score.errors.details = sendable(str(trouble.args[0]))
