"""A disk without room is told as what it is, not as a database that does not answer."""

import errno
import os
from typing import Any

import pytest

from app.core.database import outage
from tests.support import Api, Refusal, chat_lines


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes no more bytes, which shows when they are to be made safe."""

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("full")
async def test_an_upload_without_room_says_so_and_leaves_nothing(
    api: Api, data_dir: Any, tenant: Any
) -> None:
    response = await api.http.post(
        "/v1/files", files={"file": ("a.jsonl", chat_lines(3))}, data={"purpose": "fine-tune"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (503, "storage_full")
    assert "no room" in response.json()["error"]["message"]
    assert list((data_dir / "files" / tenant.actor.org_id).iterdir()) == []
    with pytest.raises(Refusal) as refused:
        await api.dataset_version(chat_lines(3))
    assert refused.value.code == "STORAGE_FULL"


async def test_another_fault_of_a_file_is_masked(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error", "/secret/place")

    monkeypatch.setattr(os, "fsync", broken)
    response = await api.http.post(
        "/v1/files", files={"file": ("a.jsonl", chat_lines(3))}, data={"purpose": "fine-tune"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "secret" not in response.text
    assert "/secret/place" in caplog.text


def test_a_files_fault_is_no_outage() -> None:
    assert outage(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))
    assert outage(OSError("Multiple exceptions: …"))
    assert outage(FileNotFoundError(errno.ENOENT, "no such socket"))
    assert not outage(FileNotFoundError(errno.ENOENT, "no such file", "/a/file"))
    assert not outage(OSError(errno.ENOSPC, "full"))
