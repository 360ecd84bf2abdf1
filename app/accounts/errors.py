"""Why a key is not accepted. All look alike to who has no key; each says what to do."""

from app.core.errors import Conflict, Invalid, NotFound, Unauthenticated


class KeyMissing(Unauthenticated):
    code = "API_KEY_MISSING"


class KeyUnknown(Unauthenticated):
    code = "API_KEY_INVALID"


class KeyExpired(Unauthenticated):
    code = "API_KEY_EXPIRED"


class KeyRevoked(Unauthenticated):
    code = "API_KEY_REVOKED"


class KeyNotFound(NotFound):
    code = "API_KEY_NOT_FOUND"


class MemberNotFound(NotFound):
    code = "MEMBER_NOT_FOUND"


class ProjectNotFound(NotFound):
    code = "PROJECT_NOT_FOUND"


class ScopeTooWide(Invalid):
    """A key cannot have a scope that the key creating it lacks."""

    code = "SCOPE_TOO_WIDE"


class LastOwner(Conflict):
    code = "LAST_OWNER"


class CredentialNotFound(NotFound):
    code = "CREDENTIAL_NOT_FOUND"
