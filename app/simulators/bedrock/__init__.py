"""A simulated Amazon Bedrock, with the bucket that its data lies in."""

from app.simulators.bedrock.simulator import (
    ACCESS_KEY_ID,
    ACCOUNT,
    BUCKET,
    PATTERNS,
    REGION,
    SECRET_ACCESS_KEY,
    BedrockSimulator,
)

__all__ = [
    "ACCESS_KEY_ID",
    "ACCOUNT",
    "BUCKET",
    "PATTERNS",
    "REGION",
    "SECRET_ACCESS_KEY",
    "BedrockSimulator",
]
