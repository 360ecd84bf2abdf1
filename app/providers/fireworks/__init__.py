"""Fireworks AI."""

from app.providers.fireworks.adapter import Fireworks

__all__ = ["Fireworks"]
