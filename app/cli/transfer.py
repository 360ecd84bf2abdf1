"""Files on their way up, and what becomes of them."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from app.cli import documents, show
from app.client import Client


async def upload_with_bar(client: Client, path: Path) -> dict[str, Any]:
    """Send a file; in a terminal a bar on stderr shows how far it is."""
    if not sys.stderr.isatty():
        return await client.upload(path)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True, markup=False)
    with Progress(*columns, TransferSpeedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(show.clean(path.name, True), total=None)
        return await client.upload(
            path, on_progress=lambda sent, size: progress.update(task, completed=sent, total=size)
        )


async def create_dataset(client: Client, path: Path, name: str) -> dict[str, Any]:
    """Upload a file and make a dataset of it; the payload of createDataset."""
    file = await upload_with_bar(client, path)
    source = {"fileId": file["id"]}
    return await client.mutate(documents.CREATE_DATASET, {"name": name, "source": source})
