"""Azure OpenAI."""

from app.providers.azure.adapter import Azure

__all__ = ["Azure"]
