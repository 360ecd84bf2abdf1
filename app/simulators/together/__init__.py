"""A simulated Together AI."""

from app.simulators.together.simulator import TogetherSimulator

__all__ = ["TogetherSimulator"]
