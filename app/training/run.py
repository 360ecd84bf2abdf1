"""What one run of the training process knows and has to do, whichever method it trains with."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import FrameType

from app.training import group
from app.training.config import TrainingConfig
from app.training.errors import TrainingFailed
from app.training.manifest import (
    Manifest,
    RunEnvironment,
    hash_file,
    hash_weights,
    seal,
    verify,
)
from app.training.report import EXIT_STOPPED, Checkpoint, Finished, Reporter, Stopped, Values
from app.training.resolve import ResolvedHyperparameters


class StopRequest:
    """SIGTERM as a flag that training looks at when nothing would be lost.

    Until training begins there is nothing to save, so the signal ends the process on the spot.
    Several processes stop together, once they have compared.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._training = False
        self._resumed_at: tuple[int, str | None] = (0, None)
        self._signalled = self._agreed = False

    @property
    def asked(self) -> bool:
        return self._signalled if group.size() == 1 else self._agreed

    @property
    def heard(self) -> bool:
        """Whether this very process knows of it: for what it does while the others wait."""
        return self._signalled or self._agreed

    def compare(self) -> None:
        """To be called by all processes at the same points: whether any of them was signalled."""
        self._agreed = group.any_of(self._signalled)

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    def resuming(self, step: int, checkpoint: Path) -> None:
        """Until a further step is done, stopping leaves the run where it was taken up."""
        self._resumed_at = (step, str(checkpoint))

    def training_begins(self) -> None:
        group.wait()
        self._training = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signalled = True
        if not self._training:
            step, path = self._resumed_at
            self._reporter.send(Stopped(step=step, checkpoint_path=path))
            # Not an exception: this may be the middle of an import, which might swallow it.
            os._exit(EXIT_STOPPED)


class Run:
    """The configuration, the reporter, and the figures that outlive a single process."""

    def __init__(self, config: TrainingConfig, reporter: Reporter, stop: StopRequest) -> None:
        self.config = config
        self.reporter = reporter
        self.stop = stop
        self.resumed: Manifest | None = None
        self.start: Manifest | None = None
        self.ended_early = False
        self.unscored = False  # a stop came before the last checkpoint had its score
        self.trained_tokens = 0
        self.latest: Values = {}
        self.last_checkpoint: tuple[int, Path] | None = None
        self.resolved: ResolvedHyperparameters
        self.environment: RunEnvironment
        self.base_sha256: str | None = None
        self.template_sha256: str

    def check_inputs(self) -> None:
        """Refuse changed data and damaged checkpoints before anything reads them."""
        config = self.config
        _check_hash(config.training_file, config.training_sha256, "training_file")
        if config.validation_file and config.validation_sha256:
            _check_hash(config.validation_file, config.validation_sha256, "validation_file")
        if config.evaluation:
            _check_hash(config.evaluation.file, config.evaluation.sha256, "evaluation_file")
        base = Path(config.base_model)
        if base.is_dir():
            self.base_sha256 = hash_weights(base)
        elif not config.allow_hub:
            raise base_model_unavailable(config)
        if config.start_from and config.start_manifest_sha256:
            self._check_start(config.start_from, config.start_manifest_sha256)
        if config.resume_from is None or config.resume_manifest_sha256 is None:
            return
        manifest = verify(config.resume_from, config.resume_manifest_sha256)
        asked = {
            "seed": config.seed,
            "training_sha256": config.training_sha256,
            "base_model_name": config.base_model_name,
            "base_sha256": self.base_sha256,
            "start_sha256": config.start_manifest_sha256,
            "method": config.method,
        }
        for name, value in asked.items():
            if getattr(manifest, name) != value:
                raise _mismatch(f"trained with another {name}")
        self.resumed = manifest
        self.trained_tokens = manifest.trained_tokens
        self.latest = dict(manifest.metrics)
        self.last_checkpoint = (manifest.step, config.resume_from)
        self.stop.resuming(manifest.step, config.resume_from)

    def _check_start(self, folder: Path, manifest_sha256: str) -> None:
        """An earlier job's weights: whole, of this base model, and of a kind to go on from."""
        config = self.config
        start = self.start = verify(folder, manifest_sha256, "start_from")
        if start.base_model_name != config.base_model_name:
            raise TrainingFailed(
                "checkpoint_mismatch",
                f"The weights to start from belong to {start.base_model_name}, not to"
                f" {config.base_model_name}.",
                "base_model",
            )
        asked = config.hyperparameters
        if start.kind == "full" and asked.adapter == "lora":
            raise TrainingFailed(
                "invalid_hyperparameters",
                "All weights of the model to start from were trained, so that an adapter would"
                " not fit the base model any more: use adapter 'full'.",
                "adapter",
            )
        if start.kind == "lora" and asked.lora_rank not in ("auto", start.resolved.lora_rank):
            raise TrainingFailed(
                "invalid_hyperparameters",
                f"The adapter to start from has rank {start.resolved.lora_rank}, which cannot be"
                " changed: leave lora_rank out.",
                "lora_rank",
            )

    @property
    def evaluation_due(self) -> bool:
        """Whether validation comes before the next step: at the start of the run, and where a
        pause has cut it off."""
        if self.resumed is None:
            return True
        step = self.resumed.step
        if not self.resolved.validates_at(step):
            return False
        return not any(name.startswith("validation_") for name in self.resumed.metrics)

    def settle(
        self,
        resolved: ResolvedHyperparameters,
        environment: RunEnvironment,
        template_sha256: str,
    ) -> None:
        """Fix what the run is computed with; a resumed one must go on with the same."""
        self.resolved, self.environment = resolved, environment
        self.template_sha256 = template_sha256
        if self.resumed is None:
            return
        if self.resumed.resolved.cut_as(resolved) != resolved:
            raise _mismatch("trained with other hyperparameters")
        if self.resumed.template_sha256 != template_sha256:
            raise _mismatch("trained with another chat template")
        before, now = self.resumed.environment.model_dump(), environment.model_dump()
        before["passes of"], now["passes of"] = (
            each.per_device_batch_size for each in (self.resumed.resolved, resolved)
        )
        for name in (name for name in now if now[name] != before[name]):
            self.reporter.message(
                "warn",
                f"Resuming with other {name} than before ({before[name]}, now {now[name]}):"
                " the remaining losses may differ in their last digits.",
            )

    def checkpoint_saved(self, folder: Path, step: int, epoch: float) -> None:
        """Seal a folder that the trainer has written, then tell."""
        self.last_checkpoint = (step, folder)
        group.wait()  # each process writes a file of its own into it
        if not group.is_first():
            return
        _forget_this_machine(folder, self.config.base_model_name)
        sha256, size = seal(folder, self._manifest(step, epoch))
        self.reporter.send(
            Checkpoint(
                step=step,
                epoch=epoch,
                path=str(folder),
                manifest_sha256=sha256,
                size_bytes=size,
                metrics=self.latest,
            )
        )

    def finished(self, written: Path, step: int, epoch: float) -> None:
        """Seal the final model under a passing name, and only then give it its own."""
        _forget_this_machine(written, self.config.base_model_name)
        sha256, size = seal(written, self._manifest(step, epoch))
        model = self.config.run_dir / "model"
        shutil.rmtree(model, ignore_errors=True)
        written.rename(model)
        self.reporter.send(
            Finished(
                model_path=str(model),
                kind=self.resolved.adapter,
                manifest_sha256=sha256,
                size_bytes=size,
                trained_tokens=self.trained_tokens,
                step=step,
                metrics=self.latest,
            )
        )

    def stopped(self) -> None:
        step, folder = self.last_checkpoint or (0, None)
        self.reporter.send(Stopped(step=step, checkpoint_path=str(folder) if folder else None))

    def _manifest(self, step: int, epoch: float) -> Manifest:
        config = self.config
        return Manifest(
            job_id=config.job_id,
            attempt=config.attempt,
            base_model_name=config.base_model_name,
            base_sha256=self.base_sha256,
            start_sha256=config.start_manifest_sha256,
            method=config.method,
            template_sha256=self.template_sha256,
            kind=self.resolved.adapter,
            step=step,
            epoch=epoch,
            trained_tokens=self.trained_tokens,
            seed=config.seed,
            training_sha256=config.training_sha256,
            validation_sha256=config.validation_sha256,
            resolved=self.resolved,
            environment=self.environment,
            metrics=self.latest,
        )


class Pace:
    """How fast this process goes, and how long the rest will take at that rate."""

    def __init__(self) -> None:
        self._steps: list[float] = []
        self._tokens = 0
        self._begun = 0.0
        self._evaluation = 0.0

    def step_begins(self) -> None:
        self._begun = time.perf_counter()

    def step_ends(self, tokens: int) -> float:
        """Returns the tokens per second of this step."""
        seconds = max(time.perf_counter() - self._begun, 1e-9)
        self._steps.append(seconds)
        self._tokens += tokens
        return tokens / seconds

    def evaluation_took(self, seconds: float) -> None:
        self._evaluation = seconds

    @property
    def tokens_per_second(self) -> float | None:
        return self._tokens / sum(self._steps) if self._steps else None

    def remaining(self, steps: int, evaluations: int) -> float | None:
        if not self._steps:
            return None
        # The first steps warm caches up; the recent ones tell about the neighbours of today.
        recent = self._steps[2:][-50:] or self._steps
        return steps * sum(recent) / len(recent) + evaluations * self._evaluation


def base_model_unavailable(config: TrainingConfig) -> TrainingFailed:
    """Names the model as its users do: where it lies on this machine is none of their business."""
    return TrainingFailed(
        "base_model_unavailable",
        f"The base model {config.base_model_name} is missing or cannot be loaded here.",
        "base_model",
    )


def _mismatch(why: str) -> TrainingFailed:
    return TrainingFailed(
        "checkpoint_mismatch", f"The checkpoint to resume from was {why}.", "resume_from"
    )


def _forget_this_machine(folder: Path, base_model_name: str) -> None:
    """Adapters record the folder their base was loaded from; elsewhere that says nothing."""
    (folder / "README.md").unlink(missing_ok=True)
    file = folder / "adapter_config.json"
    if file.exists():
        adapter = json.loads(file.read_text())
        file.write_text(
            json.dumps({**adapter, "base_model_name_or_path": base_model_name}, indent=2)
        )


def _check_hash(path: Path, sha256: str, param: str) -> None:
    try:
        actual = hash_file(path)
    except OSError as error:
        raise TrainingFailed("data_changed", f"The {param} cannot be read.", param) from error
    if actual != sha256:
        raise TrainingFailed(
            "data_changed", f"The {param} is not the one this job was submitted with.", param
        )
