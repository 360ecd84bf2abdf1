"""The life of a deployment."""

from enum import StrEnum


class DeploymentStatus(StrEnum):
    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"
    FAILED = "failed"


OVER = frozenset({DeploymentStatus.STOPPED, DeploymentStatus.FAILED})

# A server that dies goes back to starting: READY always means that it has really answered.
TRANSITIONS: dict[DeploymentStatus, frozenset[DeploymentStatus]] = {
    DeploymentStatus.PENDING: frozenset(
        {DeploymentStatus.STARTING, DeploymentStatus.STOPPED, DeploymentStatus.FAILED}
    ),
    DeploymentStatus.STARTING: frozenset(
        {DeploymentStatus.READY, DeploymentStatus.STOPPED, DeploymentStatus.FAILED}
    ),
    DeploymentStatus.READY: frozenset(
        {DeploymentStatus.STARTING, DeploymentStatus.STOPPED, DeploymentStatus.FAILED}
    ),
    DeploymentStatus.STOPPED: frozenset(),
    DeploymentStatus.FAILED: frozenset(),
}
