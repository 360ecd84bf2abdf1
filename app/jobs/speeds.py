"""How fast finished jobs went, and on what: the figures behind estimates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

_MOST = 50
# The newest jobs of one base model, method and adapter. Row-level security keeps them the
# organization's own. What was worked beside the steps is loading, evaluating and saving.
_MEASURED = text(
    """
    SELECT speed, greatest(0, worked - tokens / speed) AS beside, manifest
      FROM (SELECT (s.latest -> 'progress' ->> 'tokens_per_second')::float AS speed,
                   j.trained_tokens AS tokens, j.manifest, j.created_at,
                   (SELECT sum(extract(epoch FROM a.finished_at - a.started_at))::float
                      FROM attempts a WHERE a.org_id = j.org_id AND a.subject_id = j.id) AS worked
              FROM jobs j JOIN streams s ON s.stream_id = j.id
             WHERE j.base_model = :base_model AND j.method = :method AND j.status = 'succeeded'
               AND j.hyperparameters ->> 'adapter' = :adapter) measured
     WHERE speed > 0 AND worked IS NOT NULL AND tokens IS NOT NULL AND manifest IS NOT NULL
     ORDER BY created_at DESC LIMIT :most
    """
)


@dataclass(frozen=True)
class Machine:
    """What a job computes with: `device` is cpu or cuda, `name` that of the processor or GPU."""

    device: str
    name: str

    @staticmethod
    def of(hardware: dict[str, Any], device: str | None = None) -> "Machine":
        """A worker's. Without a device told, the one it would train on: a GPU where it has one."""
        parts = {part["kind"]: part["name"] for part in reversed(hardware["parts"])}
        if device is None:
            device = "cuda" if "gpu" in parts else "cpu"
        return Machine(device, parts.get("gpu" if device == "cuda" else "cpu", "unknown"))


@dataclass(frozen=True)
class Measured:
    """One finished job: tokens per second of its steps, seconds worked beside them."""

    speed: float
    beside: float
    machine: Machine
    dtype: str
    processes: int


async def measured(
    session: AsyncSession, base_model: str, method: str, adapter: str
) -> list[Measured]:
    """The newest first."""
    rows = await (await session.connection()).execute(
        _MEASURED,
        {"base_model": base_model, "method": method, "adapter": adapter, "most": _MOST},
    )
    return [
        Measured(
            speed,
            beside,
            Machine.of(manifest["hardware"], manifest["device"]),
            manifest["dtype"],
            manifest.get("processes", 1),
        )
        for speed, beside, manifest in rows
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """Between the two nearest values, as Postgres's `percentile_cont`."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
