"""Request bodies are bounded while they are read, announced or not.

Starlette's own middleware answers in plain text whatever the application says; here each door words
the refusal in its own form.
"""

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from app.core.errors import Limited


class BodyTooLarge(Limited):
    code = "BODY_TOO_LARGE"


def bounded(scope: Scope, receive: Receive, limit: int) -> Receive:
    """The same `receive`; raises BodyTooLarge as soon as the body is known to pass the limit."""
    announced = Headers(scope=scope).get("content-length", "")
    size = int(announced) if announced.isdecimal() else 0
    seen = 0

    async def bounded_receive() -> Message:
        nonlocal seen
        if size <= limit:
            message = await receive()
            seen += len(message.get("body", b""))
        if max(size, seen) > limit:
            raise BodyTooLarge(
                f"The request body is larger than {limit} bytes. Large data goes to "
                "POST /v1/files.",
                limit=limit,
            )
        return message

    return bounded_receive
