"""What can be wrong with a dataset."""

from app.core.errors import Conflict, Invalid, NotFound


class DatasetNotFound(NotFound):
    code = "DATASET_NOT_FOUND"


class DatasetVersionNotFound(NotFound):
    code = "DATASET_VERSION_NOT_FOUND"


class DatasetInvalid(Invalid):
    """`detail["problems"]` lists line, field and reason of what must be mended."""

    code = "DATASET_INVALID"


class DatasetPathRefused(Invalid):
    """The server-side path lies outside the folders that the settings allow."""

    code = "PATH_NOT_ALLOWED"


class DatasetInUse(Conflict):
    code = "DATASET_IN_USE"
