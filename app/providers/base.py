"""What Luthier asks of a place where models are tuned, in words that fit them all.

An adapter holds one project's access and knows nothing of our database: it is given plain values
and gives plain values back. Raises what `app.providers.errors` lists, and nothing else.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal

import httpx

from app.core.egress import Reply
from app.providers.errors import Unsupported
from app.providers.http import Http, Pace
from app.providers.urls import Allowed

Method = Literal["supervised", "dpo", "reinforcement"]


class Status(StrEnum):
    """Of a job, in our words (`app.jobs.states` has the same)."""

    PENDING = "pending"
    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True)
class Capabilities:
    """What a provider can do, as far as its API shows. The README's matrix is made of these."""

    provider: str
    name: str
    """For people."""
    methods: tuple[Method, ...]
    hyperparameters: Mapping[str, frozenset[str]]
    """Method → the hyperparameters, by our names, that it can be told."""
    pause: bool
    resume: bool
    messages: Literal["events", "status changes"]
    """Where the messages of a job come from."""
    metrics: str
    """Where the values of its steps come from, in words; "" when there are none."""
    checkpoints: bool
    webhooks: Literal["signed", "EventBridge"] | None
    deployment: Literal["automatic", "dedicated"]
    """Automatic: a finished model can be called at once, and deploying is only a check."""
    repeatable_create: bool
    """Whether a create sent twice makes one job: the provider knows it by our name or token."""
    longest_suffix: int
    needs_validation_data: tuple[Method, ...] = ()


@dataclass(frozen=True)
class Price:
    """US dollars per million trained tokens. `source` says where that was read, and when."""

    per_million: float
    as_of: date
    source: str


@dataclass(frozen=True)
class Offer:
    """A base model that the provider is known to tune. `ends` is when it shuts down, if known."""

    name: str
    methods: tuple[Method, ...]
    description: str = ""
    max_sequence_length: int | None = None
    parameter_count: int | None = None
    license: str | None = None
    price: Price | None = None
    ends: date | None = None


@dataclass(frozen=True)
class Listed:
    """A model that the provider lists now."""

    name: str
    ends: date | None = None


@dataclass(frozen=True)
class Account:
    """A project's access to a provider. `settings` are names and URLs, and may be shown."""

    secrets: Mapping[str, str] = field(repr=False)
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Data:
    """Cases to be uploaded, in our own format (`app.datasets.formats`), one JSON object a line."""

    path: Path
    method: Method
    sha256: str
    case_count: int
    role: Literal["training", "validation"] = "training"
    base_model: str = ""
    """Where each family of models has its own form. "" when it is not known yet."""


@dataclass(frozen=True)
class Order:
    """A job to be created. `marker` is our name of it, unique for ever: letters, digits, '-', '.'.

    `training` and `validation` are what `upload` returned; of `hyperparameters` (our names) those
    left to the provider are missing.
    """

    marker: str
    base_model: str
    method: Method
    training: str
    validation: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    grader: Mapping[str, Any] | None = None
    suffix: str | None = None
    seed: int | None = None
    case_count: int = 0
    validation_count: int = 0


@dataclass(frozen=True)
class Sighting:
    """A job as its provider shows it. `status` None: its word `raw` is not known to us.

    `ending`: it was told to stop and has not yet. `model` is what a finished job made, by the name
    that calls it; `raw` is the provider's own word for the status. `marker` is the `Order.marker`
    that it carries, None for jobs that were not ours. Costs are US dollars.
    """

    id: str
    raw: str
    status: Status | None
    base_model: str = ""
    method: Method = "supervised"
    marker: str | None = None
    ending: bool = False
    model: str | None = None
    error: Mapping[str, Any] | None = None
    """`code`, `message`, `param`."""
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    percent: float | None = None
    trained_tokens: int | None = None
    cost: float | None = None
    estimated_finish: datetime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    resolved: Mapping[str, Any] | None = None
    """The hyperparameters that it settled on, by our names as far as there are such."""
    suffix: str | None = None
    seed: int | None = None
    training: str | None = None
    validation: str | None = None
    name: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the adapter itself wants to find again, such as the places of result files."""


@dataclass(frozen=True)
class Item:
    """One thing that happened to a job: a message, the values of a step, or a checkpoint.

    `key` is the same whenever the same thing is told again, and differs from all others of the job.
    `values` have the names of `app.api.graphql.metrics`. `model` calls a checkpoint's weights; None
    when they cannot be used.
    """

    kind: Literal["message", "metrics", "checkpoint"]
    key: str
    at: datetime | None = None
    message: str = ""
    level: Literal["debug", "info", "warn", "error"] = "info"
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    model: str | None = None
    provider_id: str | None = None


@dataclass(frozen=True)
class Result:
    """A file that a finished job left, such as its metrics as CSV."""

    filename: str
    content: bytes


@dataclass(frozen=True)
class Placing:
    """A model to be made callable. `name` is ours, unique for ever: lower-case letters, digits and
    '-', at most 40. `model` is a name that a `Sighting` or an `Item` gave."""

    name: str
    model: str
    base_model: str = ""
    hardware: str | None = None


@dataclass(frozen=True)
class Placed:
    """A deployment at its provider. `target` is what `chat` takes; `reference` finds it again."""

    reference: str
    status: Literal["starting", "ready", "stopped", "failed"]
    target: str
    raw: str = ""
    error: str | None = None


class Adapter:
    """One project's access to one provider. What a provider lacks raises Unsupported."""

    capabilities: ClassVar[Capabilities]
    offers: ClassVar[tuple[Offer, ...]] = ()
    secrets: ClassVar[tuple[str, ...]] = ("api_key",)
    """Names of the secrets that it takes; whatever else it is given is a setting."""
    urls: ClassVar[Mapping[str, str]]
    """Names of its URLs, with what they are unless the account's settings say otherwise. `{name}`
    stands for a setting."""
    hosts: ClassVar[tuple[str, ...]]
    """The provider's own hosts: a name, or `*.` and a domain."""
    required: ClassVar[tuple[str, ...]] = ("api_key",)
    """The secrets and settings without which nothing works."""

    def __init__(
        self,
        account: Account,
        client: httpx.AsyncClient,
        allowed: Allowed,
        pace: Pace | None = None,
    ) -> None:
        """`allowed` are the URLs that the settings allow besides the provider's own. Raises
        UrlNotAllowed."""
        self.account, self.allowed = account, allowed
        for name in self.urls:
            allowed.require(self.url(name), self.hosts, name)
        self.http = Http(
            client,
            self.capabilities.name,
            auth=self.auth(client),
            pace=pace or Pace(),
            secrets=tuple(account.secrets.values()),
            read_refusal=self.read_refusal,
            allowed=allowed,
        )

    # How to get in

    def auth(self, client: httpx.AsyncClient) -> httpx.Auth | None:
        raise NotImplementedError

    def url(self, name: str) -> str:
        """One of `urls`, without a slash at its end."""
        given = self.account.settings.get(name)
        if given:
            return given.rstrip("/")
        settings = {key: value for key, value in self.account.settings.items() if value}
        return self.urls[name].format_map(_Blank(settings)).rstrip("/")

    @staticmethod
    def read_error(status: int, body: Any) -> tuple[str | None, str | None, str | None]:
        """Code, message and parameter of a refusal's JSON body."""
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict):
            return None, None, None
        return error.get("code") or error.get("type"), error.get("message"), error.get("param")

    def read_refusal(
        self, response: httpx.Response, body: Any
    ) -> tuple[str | None, str | None, str | None]:
        """The same of the whole answer, for those who say it in headers or in XML. `body` is None
        when it is no JSON."""
        return self.read_error(response.status_code, body)

    async def check(self) -> None:
        """Ask for something small, to see whether the credential works."""
        await self.listing(1)

    # Jobs

    async def upload(self, data: Data) -> str:
        """Convert and send the cases; what `Order` takes. It is ready to be trained on."""
        raise NotImplementedError

    async def create(self, order: Order) -> Sighting:
        """Sent exactly once: after ProviderUnreachable with `sent` there may be a job."""
        raise NotImplementedError

    async def find(self, marker: str) -> Sighting | None:
        """The job that carries our marker, if it was ever created."""
        for sighting in await self.listing(1000):
            if sighting.marker == marker:
                return sighting
        return None

    async def listing(self, most: int) -> list[Sighting]:
        """The newest jobs, ours and others."""
        raise NotImplementedError

    async def get(self, id: str) -> Sighting:
        """Raises ProviderMissing."""
        raise NotImplementedError

    async def cancel(self, id: str) -> None:
        """Ask for it; that it has ended is seen later. One that is over already is no error."""
        raise NotImplementedError

    async def pause(self, id: str) -> None:
        raise self.unsupported("pause jobs")

    async def resume(self, id: str) -> None:
        raise self.unsupported("resume jobs")

    async def news(self, job: Sighting, newest: str | None) -> list[Item]:
        """What happened, oldest first, at least all that is newer than the item with the key
        `newest`; more is no harm."""
        return []

    async def results(self, job: Sighting) -> list[Result]:
        """Of a job that has succeeded."""
        return []

    # Models

    async def models(self) -> list[Listed]:
        """Every model that it lists now; raises Unsupported where there is no list."""
        raise self.unsupported("list models")

    async def deploy(self, placing: Placing) -> Placed:
        """Sent twice with one name it makes one deployment."""
        return Placed(placing.model, "ready", placing.model)

    async def deployment(self, reference: str) -> Placed:
        """Raises ProviderMissing."""
        return Placed(reference, "ready", reference)

    async def undeploy(self, reference: str) -> None:
        """One that is gone already is no error."""

    def chat(self, target: str, asked: dict[str, Any]) -> AbstractAsyncContextManager[Reply]:
        """Pass on a request in OpenAI's chat completions form, and the answer in the same."""
        raise NotImplementedError

    def unsupported(self, what: str) -> Unsupported:
        return Unsupported(f"{self.capabilities.name} cannot {what} through its API.")


class _Blank(dict[str, str]):
    """A URL whose setting is missing is refused as a URL, with the field's name."""

    def __missing__(self, key: str) -> str:
        return ""
