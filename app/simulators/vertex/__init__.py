"""A simulated Google Vertex AI, with the accounts and the storage that it needs."""

from app.simulators.vertex.google import service_account
from app.simulators.vertex.simulator import VertexSimulator

__all__ = ["VertexSimulator", "service_account"]
