"""Under random kills of everything, with the database as the doorbell, every viewer's sequence
equals the log."""

from pathlib import Path

import pytest

from tests.chaos.rounds import Campaign, play


@pytest.mark.timeout(240)
async def test_every_viewer_gets_the_log(tmp_path: Path) -> None:
    faults = await play(Campaign.of(seconds=18), tmp_path)
    assert not faults, "\n".join(faults)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_every_viewer_gets_the_log_for_longer(tmp_path: Path) -> None:
    faults = await play(Campaign.of(seconds=300, times=3), tmp_path)
    assert not faults, "\n".join(faults)
