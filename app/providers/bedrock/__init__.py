"""Amazon Bedrock."""

from app.providers.bedrock.adapter import Bedrock

__all__ = ["Bedrock"]
