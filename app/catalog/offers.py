"""What providers are known to tune: from their adapters' tables, by name."""

from datetime import date

from app.core import clock
from app.providers.base import Offer
from app.providers.registry import ADAPTERS


def offers(provider: str | None = None) -> list[tuple[str, Offer]]:
    """Every base model at a provider, with the provider's name."""
    return [
        (name, offer)
        for name, adapter in ADAPTERS.items()
        if provider in (None, name)
        for offer in adapter.offers
    ]


def offer_of(provider: str, base_model: str) -> Offer | None:
    return next((offer for _, offer in offers(provider) if offer.name == base_model), None)


def days_left(ends: date | None) -> int | None:
    return None if ends is None else (ends - clock.now().date()).days
