"""`POST /webhooks/{provider}/{endpoint id}`: Standard Webhooks, and EventBridge's API destinations.

Whatever is wrong with a delivery, its sender learns nothing but that it is not taken.
"""

import asyncio
import hmac
import logging
import time
from typing import Any

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.accounts import credentials
from app.accounts.credentials import WebhookEndpoint
from app.api.body import bounded
from app.api.graphql.context import Services
from app.api.webhooks.batches import Batches
from app.core import clock, ids, signatures
from app.core.database import CONNECTION_ERRORS
from app.core.errors import Limited
from app.core.signatures import SignatureRefused
from app.core.vault import CannotOpen
from app.jobs.inbox import Delivery
from app.providers.registry import ADAPTERS, capabilities

log = logging.getLogger(__name__)

LARGEST = 64 * 1024
_LONGEST_ID = 200
_KNOWN_FOR = 5.0  # seconds; a new secret is taken after this long at the latest
_MOST_KNOWN = 1_000
_OUTAGE = (*CONNECTION_ERRORS, SQLAlchemyError)


class WebhookDoor:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._batches = Batches(services.database)
        self._known: dict[str, tuple[float, WebhookEndpoint | None]] = {}
        self._refused: dict[tuple[str, str], tuple[int, str]] = {}
        self._counting: asyncio.Task[None] | None = None

    def routes(self) -> list[Route]:
        return [Route("/webhooks/{provider}/{id}", self._take, methods=["POST"])]

    async def stop(self) -> None:
        await self._batches.stop()
        if self._counting:
            await asyncio.gather(self._counting, return_exceptions=True)

    async def _take(self, request: Request) -> Response:
        provider, id = request.path_params["provider"], request.path_params["id"]
        try:
            receive = bounded(request.scope, request.receive, LARGEST)
            body = await Request(request.scope, receive).body()
            endpoint = await self._endpoint(provider, id)
            if endpoint is None:
                return _answer(404)
            delivery = self._verified(endpoint, request, body)
            await self._batches.store(endpoint.org_id, delivery)
        except Limited:
            return _answer(413)
        except ClientDisconnect:
            return _answer(499)
        except SignatureRefused:
            return _answer(401)
        except CannotOpen as sealed:
            log.error("the webhook secret of %s cannot be opened: %s", id, sealed)
            return _answer(503)
        except _OUTAGE as trouble:
            log.warning("a webhook for %s was not stored: %s", id, trouble)
            return _answer(503)
        return _answer(202)

    async def _endpoint(self, provider: str, id: str) -> WebhookEndpoint | None:
        if provider not in ADAPTERS or ids.prefix_of(id) != ids.CREDENTIAL or len(id) > 64:
            return None
        now = time.monotonic()
        known = self._known.get(id)
        if known is None or now - known[0] > _KNOWN_FOR:
            async with self._services.database.transaction(None) as session:
                found = await credentials.find_endpoint(session, self._services.vault, id)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[id] = (now, found)
        endpoint = known[1]
        return endpoint if endpoint and endpoint.provider == provider else None

    def _verified(self, endpoint: WebhookEndpoint, request: Request, body: bytes) -> Delivery:
        """Raises SignatureRefused, and counts it."""
        headers = dict(request.headers.raw)
        try:
            if capabilities(endpoint.provider).webhooks == "EventBridge":
                _by_key(endpoint.secrets, headers.get(b"x-api-key", b""))
                return _from_event_bridge(endpoint.credential_id, _json(body))
            id = headers.get(b"webhook-id", b"")
            signatures.verify(
                endpoint.secrets,
                id,
                headers.get(b"webhook-timestamp", b""),
                headers.get(b"webhook-signature", b""),
                body,
                clock.now().timestamp(),
            )
            return _from_standard(endpoint.credential_id, id, _json(body))
        except SignatureRefused as refused:
            self._count(endpoint, str(refused))
            raise

    def _count(self, endpoint: WebhookEndpoint, why: str) -> None:
        """In memory, and written every second: a forger must not make us write as often."""
        key = (endpoint.org_id, endpoint.credential_id)
        self._refused[key] = (self._refused.get(key, (0, ""))[0] + 1, why)
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._write_counts(), name="refused-webhooks")

    async def _write_counts(self) -> None:
        while self._refused:
            await asyncio.sleep(1)
            counts, self._refused = self._refused, {}
            await self._write_these(counts)

    async def _write_these(self, counts: dict[tuple[str, str], tuple[int, str]]) -> None:
        for (org_id, id), (number, why) in counts.items():
            log.warning("%d webhooks for %s were refused, the last because %s", number, id, why)
            try:
                async with self._services.database.transaction(org_id) as session:
                    await credentials.count_refused(session, org_id, id, number)
            except _OUTAGE as trouble:
                log.warning("%d refused webhooks of %s are not counted: %s", number, id, trouble)


def _json(body: bytes) -> dict[str, Any]:
    """Signed, and still no event: as good as not signed."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise SignatureRefused("the body is not JSON") from None
    if not isinstance(found, dict):
        raise SignatureRefused("the body is no object")
    return found


def _from_standard(credential_id: str, id: bytes, body: dict[str, Any]) -> Delivery:
    data = body.get("data")
    job = data.get("id") if isinstance(data, dict) else None
    name = id.decode("ascii", "replace")[:_LONGEST_ID]
    return Delivery(credential_id, name, _text(body.get("type")) or "", _text(job), body)


def _from_event_bridge(credential_id: str, body: dict[str, Any]) -> Delivery:
    """`detail` names the job by its ARN; the event's own id is the same in each try."""
    detail = body.get("detail")
    job = detail.get("jobArn") if isinstance(detail, dict) else None
    id = _text(body.get("id"))
    if not id:
        raise SignatureRefused("the event has no id")
    kind = _text(body.get("detail-type")) or ""
    return Delivery(credential_id, id[:_LONGEST_ID], kind, _text(job), body)


def _by_key(secrets: tuple[str, ...], given: bytes) -> None:
    """The header that the API destination's connection adds: AWS signs nothing there."""
    if not any(hmac.compare_digest(secret.encode(), given) for secret in secrets):
        raise SignatureRefused("the key is another")


def _text(value: Any) -> str | None:
    return value[:2000] if isinstance(value, str) and "\0" not in value else None


def _answer(status: int) -> Response:
    words = {202: "taken", 401: "refused", 404: "unknown", 413: "too large"}
    return JSONResponse({"status": words.get(status, "try again")}, status)
