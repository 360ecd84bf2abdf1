"""What can be wrong with a file."""

from app.core.errors import Conflict, Invalid, Limited, NotFound


class FileNotFound(NotFound):
    code = "FILE_NOT_FOUND"


class FileTooLarge(Limited):
    code = "FILE_TOO_LARGE"


class FileEmpty(Invalid):
    code = "FILE_EMPTY"


class FileInUse(Conflict):
    code = "FILE_IN_USE"
