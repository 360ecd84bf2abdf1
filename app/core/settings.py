"""Every setting, read once at start from `LUTHIER_*` or `.env`, then passed as an argument."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="LUTHIER_", env_file=".env", extra="ignore", frozen=True
    )

    data_dir: Path = Field(
        Path(".luthier"), description="Everything Luthier keeps on this machine."
    )
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, description="Port the API listens on.", ge=0, le=65535)
    api_url: str | None = Field(
        None,
        description="Where a worker reaches the API, for graders that ask a model. Unset: this "
        "machine, at the port above.",
    )
    processes: int = Field(
        1,
        description="API processes, which share the port. Caches and connection pools are each "
        "process's own.",
        ge=1,
        le=64,
    )
    database_url: SecretStr | None = Field(
        None, description="Postgres 15 or newer, as the owner. Unset: the embedded Postgres."
    )
    database_pool: int = Field(10, description="Connections each process keeps.", ge=2, le=500)
    broadcast_url: SecretStr | None = Field(
        None,
        description="Where wake-ups travel: `redis://…`, `rediss://…`, `unix://…`, another "
        "`postgresql://…`, or `memory://` for one process. Unset: the database.",
    )
    master_keys: SecretStr | None = Field(
        None, description="`v2:…,v1:…`, newest first. Unset: a key file in the data folder."
    )
    pg_bin: Path | None = Field(None, description="Folder with Postgres binaries to use.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="What is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="How it is logged.")

    max_upload_bytes: int = Field(
        512 * 1024 * 1024, description="Largest file `POST /v1/files` takes.", gt=0
    )
    max_body_bytes: int = Field(
        256 * 1024, description="Largest GraphQL or JSON request body.", gt=0
    )
    allowed_origins: list[str] = Field(
        [], description="Web origins besides our own that may call the API from a browser."
    )
    introspection: bool = Field(True, description="Whether a key can query the schema.")
    suggestions: bool = Field(
        True, description="Whether a refusal suggests names that are near to a wrong one."
    )
    graphql_max_depth: int = Field(12, description="Deepest selection.", gt=0)
    graphql_max_fields: int = Field(400, description="Fields in one document.", gt=0)
    graphql_max_aliases: int = Field(30, description="Aliases in one document.", gt=0)
    graphql_max_tokens: int = Field(2000, description="Lexical tokens in one document.", gt=0)
    graphql_max_cost: int = Field(
        20_000, description="Objects one document may ask for, page sizes multiplied.", gt=0
    )
    rate_per_minute: int = Field(
        600_000,
        description="Points one API key may spend per minute in each process: 10 for a request,"
        " 1 for each object asked for, 10 more for each mutation.",
        gt=0,
    )
    graphql_seconds: float = Field(
        30, description="A query or mutation that takes longer is ended.", gt=0
    )
    connection_init_seconds: float = Field(
        10, description="A WebSocket must say `connection_init` within this time.", gt=0
    )
    max_subscriptions_per_connection: int = Field(
        100, description="Operations one WebSocket may run at once.", gt=0
    )
    max_subscriptions_per_key: int = Field(
        2_000, description="Operations the WebSockets of one API key may run in a process.", gt=0
    )
    max_connections_per_key: int = Field(
        2_000, description="WebSockets and HTTP streams one API key may hold in a process.", gt=0
    )
    max_unacknowledged_connections: int = Field(
        1_000, description="WebSockets of a process that have not shown a key yet.", gt=0
    )
    max_messages_per_second: int = Field(
        50, description="What one WebSocket may send in the long run; ten times that at once.", gt=0
    )

    model_roots: list[Path] = Field(
        [], description="Folders whose sub-folders may be used as base models."
    )
    dataset_roots: list[Path] = Field(
        [], description="Folders from which datasets may be read by server-side path."
    )
    allow_hub: bool = Field(
        False, description="Whether base models may be loaded from a model hub by name."
    )

    provider_origins: list[str] = Field(
        [],
        description="Origins (`https://gateway.example:8443`) besides the providers' own that "
        "their credentials may be sent to: an own gateway, or simulators.",
    )
    provider_poll_seconds: float = Field(
        10,
        description="How soon a provider is asked again about a job that has just been submitted; "
        "one that has run for long is asked six times less often.",
        gt=0,
    )

    worker_labels: list[str] = Field([], description="Labels of this machine's worker.")
    worker_slots: int = Field(
        1,
        description="Training processes at a time. 0: this worker only drives jobs at providers.",
        ge=0,
        le=64,
    )
    processes_per_job: int | None = Field(
        None,
        description="Processes that share the training of one job, each with a GPU of its own. "
        "Unset: the GPUs divided by the slots; 1 without GPUs.",
        ge=1,
        le=64,
    )
    threads: int | None = Field(
        None,
        description="CPU threads of one training process. Unset: cores - 1, divided among all.",
        ge=1,
    )
    memory_limit_bytes: int | None = Field(
        None,
        description="What one training process may take, of its GPU or of the machine's memory. "
        "Unset: what is free.",
        gt=0,
    )
    lease_seconds: float = Field(
        30, description="A worker that is silent for this long loses its attempt.", gt=0.5
    )
    stop_grace_seconds: float = Field(
        60, description="How long a training process may take to save and leave.", gt=0
    )
    serving_engine: Literal["transformers", "vllm"] = Field(
        "transformers", description="What holds deployed models; vLLM needs a GPU."
    )
    wandb_api_key: SecretStr | None = Field(
        None,
        description="The worker's key for Weights & Biases, for jobs that ask to be shown there.",
    )
    wandb_mode: Literal["online", "offline"] | None = Field(
        None,
        description="Offline keeps runs in the data folder, for `wandb sync`. Unset: `WANDB_MODE`.",
    )
    scoring_seconds: float = Field(
        600, description="What judging one checkpoint by graders may take.", gt=0
    )
    hourly_cost: float = Field(
        0.0, description="What an hour of this machine costs, in US dollars, for estimates.", ge=0
    )
    checkpoints_kept: int = Field(
        3,
        description="Checkpoints kept of a job that has no rule of its own, furthest first.",
        ge=1,
    )

    @property
    def local_url(self) -> str:
        """Where this machine's API listens."""
        host = _ANY_ADDRESS.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
