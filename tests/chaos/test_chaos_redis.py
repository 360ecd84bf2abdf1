"""Under random kills of everything, with Redis as the doorbell, every viewer's sequence equals the
log."""

from pathlib import Path

import pytest

from tests.chaos.rounds import Campaign, play
from tests.events.redis_server import RedisServer


@pytest.mark.timeout(240)
async def test_every_viewer_gets_the_log(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    redis.start()
    try:
        faults = await play(Campaign.of(seconds=15), tmp_path, redis)
    finally:
        redis.kill()
    assert not faults, "\n".join(faults)
