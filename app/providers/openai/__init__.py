"""OpenAI, and what others have taken over from it."""

from app.providers.openai.adapter import OpenAI
from app.providers.openai.results import points_of

__all__ = ["OpenAI", "points_of"]
