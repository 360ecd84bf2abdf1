"""A client that stands alone: queries, uploads, chat, and live streams that resume by themselves.

    async with Client("http://127.0.0.1:8000", api_key) as client:
        async for event in client.watch_job(job_id):
            ...

Needs httpx and websockets, and nothing else of Luthier.
"""

from app.client.client import Client
from app.client.errors import ApiError, Refused, Unreachable
from app.client.live import LinkState
from app.client.timing import Timing

__all__ = ["ApiError", "Client", "LinkState", "Refused", "Timing", "Unreachable"]
