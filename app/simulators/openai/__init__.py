"""A simulated OpenAI."""

from app.simulators.openai.simulator import OpenAISimulator

__all__ = ["OpenAISimulator"]
