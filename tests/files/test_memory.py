"""A large upload costs the server no memory."""

import asyncio
import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest

from app.core.settings import Settings
from tests.support import Api, Tenant

MIB = 1024 * 1024
SIZE = 300 * MIB
_SERVE = """
import socket, sys, uvicorn
from app.core.settings import Settings
from app.main import create_app
app = create_app(Settings(_env_file=None), sys.argv[2])
config = uvicorn.Config(app, log_config=None)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


@pytest.fixture
def apart(settings: Settings, database_url: str) -> Iterator[tuple[str, psutil.Process]]:
    """A server in a process of its own, with a large limit; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.listen()
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(listener.fileno()), database_url],
        pass_fds=[listener.fileno()],
        env=os.environ
        | {
            "LUTHIER_DATA_DIR": str(settings.data_dir),
            "LUTHIER_MAX_UPLOAD_BYTES": str(SIZE),
        },
    )
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", psutil.Process(process.pid)
    finally:
        listener.close()
        process.terminate()
        process.wait(15)


async def test_memory_does_not_grow_with_the_file(
    apart: tuple[str, psutil.Process], tenant: Tenant
) -> None:
    url, process = apart
    digest = hashlib.sha256()
    async with Api(url, tenant.key) as api:
        await api.upload(b"x" * MIB)
        before = peak = process.memory_info().rss
        boundary = "large"

        async def body() -> AsyncIterator[bytes]:
            nonlocal peak
            for name, more in (("purpose", ""), ("file", '; filename="large.jsonl"')):
                yield (
                    f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
                ).encode()
                if name == "purpose":
                    yield b"fine-tune\r\n"
            for n in range(SIZE // MIB):
                piece = bytes([n % 251]) * MIB
                digest.update(piece)
                yield piece
                peak = max(peak, process.memory_info().rss)
            yield f"\r\n--{boundary}--\r\n".encode()

        response = await asyncio.wait_for(
            api.http.post(
                "/v1/files",
                content=body(),
                headers={"content-type": f"multipart/form-data; boundary={boundary}"},
            ),
            60,
        )
        file = response.json()
        peak = max(peak, process.memory_info().rss)
        assert (response.status_code, file["bytes"]) == (200, SIZE)
        assert file["sha256"] == digest.hexdigest()
        await api.http.delete(f"/v1/files/{file['id']}")
    assert peak - before < 32 * MIB, f"{(peak - before) / MIB:.0f} MiB"
