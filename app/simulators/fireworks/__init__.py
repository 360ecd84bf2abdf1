"""A simulated Fireworks AI."""

from app.simulators.fireworks.simulator import FireworksSimulator

__all__ = ["FireworksSimulator"]
