"""Signature version 4, by botocore, of requests to Bedrock and to the bucket."""

import hashlib
from collections.abc import Generator
from datetime import timedelta
from email.utils import parsedate_to_datetime

import httpx
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from app.core import clock

_CLOCKS_DIFFER = timedelta(minutes=1)


class Signed(httpx.Auth):
    """A signature holds for five minutes around the service's time. When ours is off, the refusal's
    own date says by how much, and the request is sent once more: it has done nothing.
    """

    requires_request_body = True

    def __init__(self, credentials: Credentials, region: str, storage: str) -> None:
        """`storage`: the URL below which requests go to S3, which is signed differently."""
        self._storage = str(httpx.URL(storage)).rstrip("/")
        # The runtime is another host, but the same service to those who check signatures.
        self._control = SigV4Auth(credentials, "bedrock", region)
        self._s3 = S3SigV4Auth(credentials, "s3", region)
        self._token = credentials.token
        self._ahead = timedelta()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self._sign(request)
        response = yield request
        if response.status_code != 403 or not (dates := response.headers.get_list("date")):
            return
        try:
            ahead = parsedate_to_datetime(dates[-1]) - clock.now()
        except (ValueError, TypeError):
            return
        if abs(ahead - self._ahead) > _CLOCKS_DIFFER:
            self._ahead = ahead
            self._sign(request)
            yield request

    def _sign(self, request: httpx.Request) -> None:
        stored = str(request.url).startswith(self._storage)
        signer = self._s3 if stored else self._control
        stamp = (clock.now() + self._ahead).strftime("%Y%m%dT%H%M%SZ")
        headers = {"Host": request.headers["host"], "X-Amz-Date": stamp}
        if "content-type" in request.headers:
            headers["Content-Type"] = request.headers["content-type"]
        if self._token:
            headers["X-Amz-Security-Token"] = self._token
        if stored:
            headers["X-Amz-Content-SHA256"] = hashlib.sha256(request.content).hexdigest()
        # As it goes over the wire: an ARN in a path is escaped, and what is signed once more.
        url = f"{request.url.scheme}://{headers['Host']}{request.url.raw_path.decode()}"
        told = AWSRequest(request.method, url, headers=headers, data=request.content)
        told.context["timestamp"] = stamp
        signature = signer.signature(
            signer.string_to_sign(told, signer.canonical_request(told)), told
        )
        names = signer.signed_headers(signer.headers_to_sign(told))
        request.headers.update(headers)
        request.headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={signer.scope(told)}, SignedHeaders={names}, "
            f"Signature={signature}"
        )
