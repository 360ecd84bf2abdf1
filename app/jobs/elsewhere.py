"""What is checked of a job that is to be tuned at a provider, before anything is sent there."""

from statistics import median
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from app.accounts import credentials, radar
from app.catalog.base_models import LOCAL, BaseModel, BaseModels
from app.catalog.offers import days_left, offer_of, offers
from app.core.actor import Actor
from app.jobs.errors import JobInputInvalid
from app.jobs.estimates import Estimate, Size
from app.jobs.methods import camel
from app.models.tables import Model
from app.providers.base import Offer
from app.providers.errors import Unsupported
from app.providers.registry import capabilities
from app.training.hyperparameters import Hyperparameters
from app.training.resolve import method_of

WARN_DAYS = 90
_LOW, _HIGH = 300.0, 14_400.0
# How long jobs at the same place took of late, for an estimate.
_TOOK = text(
    "SELECT extract(epoch FROM finished_at - created_at) AS seconds FROM jobs"
    " WHERE provider = :provider AND base_model = :model AND status = 'succeeded'"
    " AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 50"
)


async def place_of(
    session: AsyncSession,
    actor: Actor,
    base_models: BaseModels,
    provider: str | None,
    base_model: str,
    start: Model | None,
) -> str:
    """Where the job goes: where it was asked for; where the model to go on from lies; here, if the
    base model is here; else at the one provider that offers it and that the project can use."""
    if start is not None:
        if provider not in (None, start.provider):
            raise JobInputInvalid(
                f"The model {start.name} is at {start.provider}; it cannot be tuned elsewhere.",
                path=("provider",),
            )
        return start.provider
    if provider is not None:
        return provider
    if any(model.name == base_model for model in base_models.all()):
        return LOCAL
    usable = {row.provider for row in await credentials.credentials(session, actor)}
    found = {name for name, offer in offers() if offer.name == base_model} & usable
    if len(found) > 1:
        raise JobInputInvalid(
            f"{base_model} is offered by {' and '.join(sorted(found))}. Say which.",
            path=("provider",),
        )
    return found.pop() if found else LOCAL


def as_base_model(provider: str, name: str, offer: Offer | None) -> BaseModel:
    found = capabilities(provider)
    return BaseModel(
        name=name,
        provider=provider,
        location="",
        description=offer.description if offer else f"Not in our list of what {found.name} tunes.",
        license=offer.license if offer else None,
        parameter_count=offer.parameter_count if offer else None,
        max_sequence_length=offer.max_sequence_length if offer else None,
        methods=offer.methods if offer else found.methods,
        ends=offer.ends if offer else None,
    )


def check_fit(
    provider: str,
    base_model: str,
    method: str,
    asked: dict[str, Any],
    suffix: str | None,
    *,
    validation: bool,
) -> None:
    """Raises Unsupported or JobInputInvalid for what the provider would refuse, or not heed."""
    found, offer = capabilities(provider), offer_of(provider, base_model)
    methods = offer.methods if offer else found.methods
    if method not in methods:
        raise Unsupported(
            f"{found.name} tunes {base_model} by {', '.join(methods)}, not by {method}.",
            path=("method",),
        )
    unknown = sorted(asked.keys() - found.hyperparameters[method] - {"adapter"})
    if asked.get("adapter") == "full" and "adapter" not in found.hyperparameters[method]:
        unknown.append("adapter")
    if unknown:
        known = ", ".join(map(camel, sorted(found.hyperparameters[method])))
        raise Unsupported(
            f"{found.name} has no hyperparameter {camel(unknown[0])}. "
            f"It has for {method}: {known}.",
            path=("method", method, "hyperparameters", camel(unknown[0])),
        )
    if suffix is not None and len(suffix) > found.longest_suffix:
        raise JobInputInvalid(
            f"A suffix at {found.name} has at most {found.longest_suffix} characters.",
            path=("suffix",),
        )
    if method in found.needs_validation_data and not validation:
        raise JobInputInvalid(
            f"{found.name} needs validation data for {method}.", path=("validationData",)
        )


def told(provider: str, asked: Hyperparameters) -> dict[str, Any]:
    """What a job is recorded with: at a provider, only what that can be told."""
    everything = asked.model_dump()
    if provider == LOCAL:
        return everything
    known = capabilities(provider).hyperparameters[method_of(asked)]
    return {name: value for name, value in everything.items() if name in known}


async def check_account(
    session: AsyncSession, actor: Actor, provider: str, base_model: str
) -> list[str]:
    """That the project can use the provider, and the model lives on; returns warnings."""
    name = capabilities(provider).name
    row = await credentials.of_project(session, actor.org_id, actor.project_id, provider)
    if row is None:
        raise JobInputInvalid(
            f"This project has no credential for {name}. Call setProviderCredential first.",
            path=("provider",),
        )
    warnings = []
    if row.status == "denied":
        warnings.append(f"{name} did not accept the credential of late: {row.trouble}")
    offer = offer_of(provider, base_model)
    seen = {one.name: one for one in await radar.known(session, actor.org_id, row.id)}
    listed = seen.get(base_model)
    ends = (listed.ends if listed else None) or (offer.ends if offer else None)
    left = days_left(ends)
    if left is not None and left < 0:
        raise JobInputInvalid(
            f"{base_model} at {name} ended on {ends}. Choose another base model.",
            path=("baseModel",),
        )
    if left is not None and left <= WARN_DAYS:
        warnings.append(f"{base_model} at {name} ends on {ends}, in {left} days.")
    if listed is not None and listed.gone_at is not None:
        warnings.append(f"{name} has not listed {base_model} since {listed.gone_at:%Y-%m-%d}.")
    if offer is None and listed is None:
        warnings.append(f"{base_model} is not among the models that {name} is known to tune.")
    return warnings


async def estimate(
    session: AsyncSession, provider: str, base_model: str, asked: Hyperparameters, size: Size
) -> Estimate:
    """By the provider's price, where one is known, and by how long earlier jobs took there."""
    found, offer = capabilities(provider), offer_of(provider, base_model)
    epochs = 3 if asked.n_epochs == "auto" else asked.n_epochs
    batch = max(1, size.cases // 50) if asked.batch_size == "auto" else asked.batch_size
    tokens = size.tokens * epochs
    price = offer.price if offer else None
    parameters = {"provider": provider, "model": base_model}
    rows = await (await session.connection()).execute(_TOOK, parameters)
    took = [float(row.seconds) for row in rows]
    basis = (
        f"{tokens} tokens at ${price.per_million:g} a million ({price.source})"
        if price
        else f"no price of {found.name} is known for it"
    )
    basis += (
        f"; {len(took)} earlier jobs took {median(took):.0f} seconds"
        if took
        else "; no job was measured there yet"
    )
    return Estimate(
        tokens=tokens,
        epochs=epochs,
        steps=-(-size.cases * epochs // batch),
        seconds_low=round(min(took) * 0.8, 1) if took else _LOW,
        seconds_high=round(max(took) * 1.3, 1) if took else _HIGH,
        cost=round(tokens / 1e6 * price.per_million, 4) if price else None,
        currency="USD",
        basis=basis,
    )
