"""Webhook signatures: the same as others make and accept, and nothing else accepted."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook

from app.core.signatures import SignatureRefused, sign, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(b"another secret of thirty-two b..").decode()
BODY = b'{"id":"evt_1","object":"event","created_at":1,"type":"fine_tuning.job.succeeded",' + (
    b'"data":{"id":"ftjob-1"}}'
)
NOW = 1_800_000_000


def check(
    signatures: str | bytes,
    secrets: tuple[str, ...] = (SECRET,),
    id: bytes = b"wh_1",
    timestamp: str | bytes = str(NOW),
    body: bytes = BODY,
    now: float = NOW,
) -> None:
    as_bytes = [one.encode() if isinstance(one, str) else one for one in (timestamp, signatures)]
    verify(secrets, id, as_bytes[0], as_bytes[1], body, now)


@pytest.fixture
def unwrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, int, str], str]]:
    """OpenAI's own check, at the time `NOW`: secret, timestamp, signatures → the event's type."""
    monkeypatch.setattr("openai.lib._webhooks.time", SimpleNamespace(time=lambda: NOW))
    with OpenAI(api_key="none") as client:

        def ask(secret: str, timestamp: int, signatures: str) -> str:
            headers = {
                "webhook-id": "wh_1",
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signatures,
            }
            return client.webhooks.unwrap(BODY, headers, secret=secret).type

        yield ask


@settings(deadline=None)
@given(st.text(min_size=1, max_size=40), st.integers(0, 4_000_000_000), st.text(max_size=200))
def test_it_signs_as_the_standard_package_does(id: str, timestamp: int, body: str) -> None:
    theirs = Webhook(SECRET).sign(id, datetime.fromtimestamp(timestamp, UTC), body)
    assert sign(SECRET, id, timestamp, body.encode()) == theirs
    check(theirs, id=id.encode(), timestamp=str(timestamp), body=body.encode(), now=timestamp)


def test_the_standard_package_accepts_what_we_sign() -> None:
    now = int(time.time())
    ours = sign(SECRET, "wh_1", now, BODY)
    headers = {"webhook-id": "wh_1", "webhook-timestamp": str(now), "webhook-signature": ours}
    assert Webhook(SECRET).verify(BODY, headers) == json.loads(BODY)


@pytest.mark.parametrize("secret", [SECRET, OTHER, "plain words"])
def test_openai_reads_secrets_as_we_do(secret: str, unwrap: Callable[[str, int, str], str]) -> None:
    assert unwrap(secret, NOW, sign(secret, "wh_1", NOW, BODY)) == "fine_tuning.job.succeeded"


def test_a_secret_may_lack_its_padding() -> None:
    check(sign(SECRET, "wh_1", NOW, BODY), secrets=(SECRET.rstrip("="),))
    check(sign("whsec_not base64!", "wh_1", NOW, BODY), secrets=("whsec_not base64!",))


@pytest.mark.parametrize("off", [-299, 299, -300, 300])
def test_a_clock_may_be_five_minutes_off(off: int, unwrap: Callable[[str, int, str], str]) -> None:
    signed = sign(SECRET, "wh_1", NOW + off, BODY)
    check(signed, timestamp=str(NOW + off))
    assert unwrap(SECRET, NOW + off, signed)


@pytest.mark.parametrize("off", [-301, 301])
def test_and_no_more(off: int, unwrap: Callable[[str, int, str], str]) -> None:
    signed = sign(SECRET, "wh_1", NOW + off, BODY)
    with pytest.raises(SignatureRefused):
        check(signed, timestamp=str(NOW + off))
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(SECRET, NOW + off, signed)


def test_while_secrets_are_rotated_both_are_good() -> None:
    for secret in (SECRET, OTHER):
        check(sign(secret, "wh_1", NOW, BODY), secrets=(OTHER, SECRET))
    with pytest.raises(SignatureRefused):
        check(sign(OTHER, "wh_1", NOW, BODY))
    with pytest.raises(SignatureRefused):
        check(sign(SECRET, "wh_1", NOW, BODY), secrets=())


def test_one_of_several_signatures_is_enough() -> None:
    right, wrong = sign(SECRET, "wh_1", NOW, BODY), sign(OTHER, "wh_1", NOW, BODY)
    for several in (f"{wrong} {right}", f"{right} {wrong}", f"v2,xyz  {right}", f"v1a,x {right} "):
        check(several)
    for none in (wrong, right.replace("v1,", "v2,"), right[3:], f"{wrong},{right}", "", "v1,"):
        with pytest.raises(SignatureRefused):
            check(none)


def test_nothing_may_differ_from_what_was_signed() -> None:
    right = sign(SECRET, "wh_1", NOW, BODY)
    for changed in (
        {"id": b"wh_2"},
        {"timestamp": str(NOW + 1)},
        {"timestamp": f"0{NOW}"},
        {"body": BODY + b" "},
        {"id": b""},
        {"timestamp": ""},
    ):
        with pytest.raises(SignatureRefused):
            check(right, **changed)


@pytest.mark.parametrize("secret", ["", "whsec_"])
def test_an_empty_secret_accepts_nothing(secret: str) -> None:
    with pytest.raises(SignatureRefused):
        check(sign(secret, "wh_1", NOW, BODY), secrets=(secret,))


PIECES = st.sampled_from([b"v1,", b"v2,", b",", b" ", b".", b"=", b"\x00", b"\xff", b"1800000000"])
HOSTILE = st.one_of(
    st.binary(max_size=60), st.lists(PIECES | st.binary(max_size=8), max_size=12).map(b"".join)
)


@settings(deadline=None)
@given(HOSTILE, HOSTILE | st.just(str(NOW).encode()), HOSTILE, st.binary(max_size=60))
def test_hostile_headers_are_refused_and_break_nothing(
    id: bytes, timestamp: bytes, signatures: bytes, body: bytes
) -> None:
    with pytest.raises(SignatureRefused):
        verify((SECRET, OTHER), id, timestamp, signatures, body, NOW)


@pytest.mark.parametrize(
    "timestamp", [b"1e9", b"-1", b" 1800000000", b"1800000000\n", "١٨٠٠".encode(), b"9" * 5000]
)
def test_timestamps_are_plain_digits(timestamp: bytes) -> None:
    with pytest.raises(SignatureRefused):
        verify((SECRET,), b"wh_1", timestamp, b"v1,x", BODY, NOW)
