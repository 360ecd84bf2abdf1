"""What can be wrong with a model or a deployment."""

from app.core.errors import Conflict, NotFound, Unavailable


class ModelNotFound(NotFound):
    code = "MODEL_NOT_FOUND"


class DeploymentNotFound(NotFound):
    code = "DEPLOYMENT_NOT_FOUND"


class PermissionNotFound(NotFound):
    code = "PERMISSION_NOT_FOUND"


class ModelNotDeployed(Conflict):
    code = "MODEL_NOT_DEPLOYED"


class ModelInUse(Conflict):
    code = "MODEL_IN_USE"


class DeploymentNotReady(Unavailable):
    code = "DEPLOYMENT_NOT_READY"


class DeploymentTransitionRefused(Conflict):
    code = "INVALID_TRANSITION"
