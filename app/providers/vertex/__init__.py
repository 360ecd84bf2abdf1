"""Google Vertex AI."""

from app.providers.vertex.adapter import Vertex

__all__ = ["Vertex"]
