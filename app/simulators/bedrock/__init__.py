"""A simulated Amazon Bedrock, with the bucket that its data lies in."""

from app.simulators.bedrock.base import (
    ACCESS_KEY_ID,
    ACCOUNT,
    BUCKET,
    PATTERNS,
    REGION,
    SECRET_ACCESS_KEY,
)
from app.simulators.bedrock.simulator import BedrockSimulator

__all__ = [
    "ACCESS_KEY_ID",
    "ACCOUNT",
    "BUCKET",
    "PATTERNS",
    "REGION",
    "SECRET_ACCESS_KEY",
    "BedrockSimulator",
]
