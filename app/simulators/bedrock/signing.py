"""The doors of the simulated Bedrock and its bucket, where every signature is recomputed."""

import hashlib
import hmac
import re
import secrets
import uuid
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.requests import Request
from starlette.responses import Response

from app.simulators.bedrock.base import (
    ACCESS_KEY_ID,
    REGION,
    SECRET_ACCESS_KEY,
    BedrockBase,
    Refused,
)
from app.simulators.runs import Plan

_AT_MOST_OFF = 300.0
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


class Doors(BedrockBase):
    def __init__(self, plan: Plan | None = None, seed: int = 0) -> None:
        super().__init__(plan, seed)
        self.keys: dict[str, tuple[str, str | None]] = {ACCESS_KEY_ID: (SECRET_ACCESS_KEY, None)}
        """Access key id → the secret, and the session token that must come with it, if any."""

    def door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                self.admit(request, await request.body(), "bedrock")
                response: Response = await handler(request)
            except Refused as refused:
                response = self.refusal(refused.status, refused.code, refused.message)
            return self.dated(response)

        return answer

    def s3_door(self, handler: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                self.admit(request, await request.body(), "s3")
                response: Response = await handler(request)
            except Refused as refused:
                body = (
                    '<?xml version="1.0" encoding="UTF-8"?>\n'
                    f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}"
                    f"</Message><RequestId>{secrets.token_hex(8)}</RequestId></Error>"
                )
                response = Response(body, refused.status, media_type="application/xml")
            return self.dated(response)

        return answer

    def dated(self, response: Response) -> Response:
        """The date is behind the one that the server adds: clients who correct their clocks by it
        take the last."""
        response.headers["date"] = formatdate(self._clock(), usegmt=True)
        response.headers["x-amzn-requestid"] = str(uuid.uuid4())
        return response

    def _clock(self) -> float:
        """What signatures are held against: time that was only moved has no part in it."""
        return self.now() - self._moved

    def admit(self, request: Request, body: bytes, service: str) -> None:
        """Recompute the signature. Raises Refused, with the codes that S3 has for itself."""
        s3 = service == "s3"
        found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if not found:
            code = "AccessDenied" if s3 else "MissingAuthenticationTokenException"
            raise Refused(403, code, "Missing Authentication Token")
        key_id, day, region, named, names, given = found.groups()
        secret, token = self.keys.get(key_id, (None, None))
        if secret is None or (token and request.headers.get("x-amz-security-token") != token):
            code = "InvalidAccessKeyId" if s3 else "UnrecognizedClientException"
            raise Refused(403, code, "The security token included in the request is invalid.")
        stamp = request.headers.get("x-amz-date", "")
        try:
            moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        except ValueError:
            moment = 0.0
        if abs(moment - self._clock()) > _AT_MOST_OFF:
            code = "RequestTimeTooSkewed" if s3 else "InvalidSignatureException"
            raise Refused(403, code, f"Signature expired: {stamp} is too far from now.")
        wrong = "SignatureDoesNotMatch" if s3 else "InvalidSignatureException"
        if (region, named, day) != (REGION, service, stamp[:8]):
            raise Refused(403, wrong, "Credential should be scoped to a valid region and service.")
        told = request.headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        if told != "UNSIGNED-PAYLOAD" and told != hashlib.sha256(body).hexdigest():
            raise Refused(400, "XAmzContentSHA256Mismatch", "The body is not what was signed.")
        if not hmac.compare_digest(given, _signature(request, body, s3, key_id, secret, names)):
            raise Refused(
                403,
                wrong,
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method.",
            )


def _signature(
    request: Request, body: bytes, s3: bool, key_id: str, secret: str, names: str
) -> str:
    """Over what came, as it came."""
    signer = (S3SigV4Auth if s3 else SigV4Auth)(
        Credentials(key_id, secret), "s3" if s3 else "bedrock", REGION
    )
    path, query = request.scope["raw_path"].decode(), request.scope["query_string"].decode()
    url = f"http://{request.headers['host']}{path}" + (f"?{query}" if query else "")
    headers = {name: request.headers.get(name, "") for name in names.split(";")}
    seen = AWSRequest(request.method, url, headers=headers, data=body)
    seen.context["timestamp"] = request.headers["x-amz-date"]
    text = signer.string_to_sign(seen, signer.canonical_request(seen))
    return str(signer.signature(text, seen))
