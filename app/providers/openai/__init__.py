"""OpenAI, and what others have taken over from it."""

from app.providers.openai.adapter import OpenAI, points_of

__all__ = ["OpenAI", "points_of"]
