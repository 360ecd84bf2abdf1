"""Together AI."""

from app.providers.together.adapter import Together

__all__ = ["Together"]
