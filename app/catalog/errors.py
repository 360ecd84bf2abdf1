"""What can be wrong with what a job asks for."""

from app.core.errors import Invalid


class BaseModelUnknown(Invalid):
    """`detail["available"]` lists the names that would do."""

    code = "BASE_MODEL_UNKNOWN"


class HardwareUnknown(Invalid):
    code = "HARDWARE_UNKNOWN"
