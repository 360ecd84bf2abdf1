"""What can come of asking a provider. Only `Refused` and `Missing` say anything about a job."""

from typing import Any

from app.core.errors import Conflict, Invalid, NotFound, Unavailable


class ProviderUnreachable(Unavailable):
    """No answer, or one that says nothing: a time-out, a broken connection, a 5xx.

    `sent`: the request may have arrived, so that what it asked for may have been done.
    """

    code = "PROVIDER_UNREACHABLE"

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class ProviderBusy(ProviderUnreachable):
    """It asks to be left alone for `seconds` (None: it does not say). Nothing was done."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message, sent=False)
        self.seconds = seconds


class ProviderDenied(Conflict):
    """It does not accept the credential, or the credential may not do this."""

    code = "PROVIDER_DENIED"


class ProviderRefused(Invalid):
    """It understood, and will not: the request is wrong for good. `reason` is its own code."""

    code = "PROVIDER_REFUSED"

    def __init__(self, message: str, *, reason: str = "refused", param: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.param = reason, param


class ProviderMissing(NotFound):
    """It has no such thing (any more)."""

    code = "PROVIDER_MISSING"


class ProviderExists(Conflict):
    """It has one by this name already: where we choose the name, what we made before.

    `body` is the JSON it said so with, which may tell the id of the one there is.
    """

    code = "PROVIDER_EXISTS"

    def __init__(self, message: str, body: Any = None) -> None:
        super().__init__(message)
        self.body = body


class Unsupported(Invalid):
    """The provider has no such verb; the capability matrix says so."""

    code = "UNSUPPORTED"


class UrlNotAllowed(Invalid):
    """The URL is neither the provider's own nor allowed by the settings."""

    code = "URL_NOT_ALLOWED"


ProviderTrouble = (ProviderUnreachable, ProviderDenied)
"""What passes by itself, or by a hand at the credential: never a job's fault."""
