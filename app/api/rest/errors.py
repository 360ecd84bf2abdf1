"""Refusals in OpenAI's envelope: `{"error": {message, type, param, code}}`."""

import logging

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from app.api.body import BodyTooLarge
from app.api.limits import RateLimited
from app.core import errors
from app.core.database import outage, refuses_text
from app.core.errors import AppError
from app.files.errors import FileTooLarge

log = logging.getLogger(__name__)


def error_response(refused: AppError) -> Response:
    status, kind = _status(refused)
    body = {
        "error": {
            "message": refused.message,
            "type": kind,
            "param": ".".join(refused.path) or None,
            "code": refused.code.lower(),
        }
    }
    headers = {"retry-after": "1"} if status in (429, 503) else {}
    if isinstance(refused, RateLimited):
        headers["retry-after"] = str(refused.retry_after)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(body), status, headers, "application/json")


def expected(trouble: Exception, request_id: str) -> AppError:
    """What a client may know of an exception that is none of ours; it is logged."""
    if refuses_text(trouble):
        return errors.Invalid("Text must not hold the character U+0000.")
    if outage(trouble) or isinstance(trouble, SQLAlchemyError):
        log.error("database trouble in request %s: %s", request_id, trouble)
        return errors.Unavailable("The database does not answer. Try again in a moment.")
    log.error("bug in request %s", request_id, exc_info=trouble)
    return AppError(
        f"Something went wrong on our side. Quote request {request_id} to the operator."
    )


def _status(refused: AppError) -> tuple[int, str]:
    match refused:
        case FileTooLarge() | BodyTooLarge():
            return 413, "invalid_request_error"
        case errors.Invalid():
            return 400, "invalid_request_error"
        case errors.NotFound():
            return 404, "invalid_request_error"
        case errors.Conflict():
            return 409, "invalid_request_error"
        case errors.Unauthenticated():
            return 401, "authentication_error"
        case errors.Forbidden():
            return 403, "permission_error"
        case errors.Limited():
            return 429, "rate_limit_error"
        case errors.Unavailable():
            return 503, "server_error"
        case _:
            return 500, "server_error"
