"""What the program refuses: as one report with a code, before it touches anything doubtful."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.training.environment import environment
from app.training.errors import TrainingFailed
from app.training.hyperparameters import SupervisedHyperparameters
from app.training.manifest import Manifest, RunEnvironment, seal, verify
from app.training.report import finite, parse
from app.training.resolve import resolve
from tests.training.training_helpers import Start, sha256, write_rows

pytestmark = [pytest.mark.train, pytest.mark.timeout(300)]

ZEROS = "0" * 64


def sealed(folder: Path) -> str:
    """A checkpoint folder as the program leaves it, with a pickle that must not be opened."""
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "optimizer.pt").write_bytes(b"cos\nsystem\n(S'touch /tmp/unpickled'\ntR.")
    manifest = Manifest(
        job_id="ftjob_test",
        attempt=1,
        base_model_name="tiny",
        method="supervised",
        template_sha256=ZEROS,
        kind="lora",
        step=5,
        epoch=0.5,
        trained_tokens=100,
        seed=7,
        training_sha256=ZEROS,
        validation_sha256=None,
        resolved=resolve(SupervisedHyperparameters(), 10),
        environment=RunEnvironment(device="cpu", dtype="float32", threads=1, versions={}),
        metrics={"training_loss": None},
    )
    sha, size = seal(folder, manifest)
    assert size > 0
    return sha


def test_a_sealed_folder_verifies(tmp_path: Path) -> None:
    sha = sealed(tmp_path / "checkpoint-5")
    manifest = verify(tmp_path / "checkpoint-5", sha)
    assert [file.path for file in manifest.files] == ["adapter_model.safetensors", "optimizer.pt"]


@pytest.mark.parametrize("damage", ["shorter", "other", "missing", "extra", "link", "manifest"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "checkpoint-5"
    sha = sealed(folder)
    file = folder / "optimizer.pt"
    if damage == "shorter":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "other":
        file.write_bytes(bytes(reversed(file.read_bytes())))
    elif damage == "missing":
        file.unlink()
    elif damage == "extra":
        (folder / "rng_state.pth").write_bytes(b"x")
    elif damage == "link":
        elsewhere = tmp_path / "elsewhere"
        file.rename(elsewhere)
        file.symlink_to(elsewhere)
    else:
        (folder / "manifest.json").unlink()
    with pytest.raises(TrainingFailed) as refusal:
        verify(folder, sha)
    assert refusal.value.code == "checkpoint_corrupt"


def test_a_torn_checkpoint_fails_the_run(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-5"
    sha = sealed(folder)
    (folder / "optimizer.pt").write_bytes(b"torn")
    failed = start(resume_from=folder, resume_manifest_sha256=sha).end().failed
    assert (failed.code, failed.param) == ("checkpoint_corrupt", "resume_from")


def test_a_checkpoint_of_other_data_is_refused(start: Start, tmp_path: Path) -> None:
    sha = sealed(tmp_path / "checkpoint-5")
    failed = start(resume_from=tmp_path / "checkpoint-5", resume_manifest_sha256=sha).end().failed
    assert failed.code == "checkpoint_mismatch"


def test_changed_data_is_refused(start: Start) -> None:
    failed = start(training_sha256=ZEROS).end().failed
    assert (failed.code, failed.param) == ("data_changed", "training_file")


def test_a_missing_base_model_is_refused(start: Start, tmp_path: Path) -> None:
    failed = start(base_model=tmp_path / "nowhere").end().failed
    assert (failed.code, failed.param) == ("base_model_unavailable", "base_model")
    assert str(tmp_path) not in failed.message


def test_data_without_anything_to_learn_is_refused(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "silent.jsonl"
    write_rows(file, [{"messages": [{"role": "user", "content": "anyone there?"}]}])
    failed = start(training_file=file, training_sha256=sha256(file)).end().failed
    assert (failed.code, failed.param) == ("invalid_training_file", "training_file")


@pytest.mark.parametrize(
    ("config", "code", "param"),
    [
        ({"hyperparameters": {"n_epochs": 51}}, "invalid_hyperparameters", "n_epochs"),
        ({"hyperparameters": {"epochs": 3}}, "invalid_hyperparameters", "epochs"),
        ({"surprise": 1}, "invalid_config", "surprise"),
    ],
)
def test_a_bad_configuration_is_refused(
    start: Start, config: dict[str, Any], code: str, param: str
) -> None:
    failed = start(**config).end().failed
    assert (failed.code, failed.param) == (code, param)


def test_reports_carry_no_nan() -> None:
    values, names = finite({"a": float("nan"), "b": float("-inf"), "c": 1.5})
    assert values == {"a": None, "b": None, "c": 1.5}
    assert names == ["a", "b"]
    with pytest.raises(ValueError):
        parse(json.dumps({"type": "rumour"}))


def test_the_environment_is_offline_unless_a_hub_is_allowed() -> None:
    assert environment(3)["OMP_NUM_THREADS"] == "3"
    assert environment(1)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(1, allow_hub=True)
