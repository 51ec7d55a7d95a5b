"""Ways to wake a device, behind one small contract.

Three fields leave the server: platform and token, as the device registered them, and a random id that stays the same
when the request is repeated.  No sender, no number, no preview.

FCM and APNs are a webhook's job (docs/push.md): a few lines that hold their credentials, so that this server never has
them.
"""

import asyncio
import json
import os
import ssl
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

import httpx

from wa import limits
from wa.config import Push
from wa.errors import LocalError


class Verdict(Enum):
    SENT = 1
    GONE = 2  # this token is not valid any more
    REFUSED = 3  # repeating it would not help
    FAILED = 4  # repeating it may help


@dataclass(frozen=True)
class Answer:
    """retry_after_s: the endpoint's Retry-After, None without one.  detail: for the log."""

    verdict: Verdict
    detail: str = ""
    retry_after_s: float | None = None


class PushTransport(Protocol):
    async def send(self, platform: str, token: str, wake_id: str) -> Answer:
        """Never raises for what the other side does."""

    async def close(self) -> None: ...


def encode(platform: str, token: str, wake_id: str) -> bytes:
    """The JSON object that leaves the server."""
    return json.dumps({"platform": platform, "token": token, "id": wake_id}, separators=(",", ":")).encode()


class FileTransport:
    """A line of JSON appended to a file (0600), for tests and demonstrations."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def send(self, platform: str, token: str, wake_id: str) -> Answer:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, encode(platform, token, wake_id) + b"\n")
            finally:
                os.close(file)
        except OSError as error:
            return Answer(Verdict.FAILED, error.strerror or "")
        return Answer(Verdict.SENT)

    async def close(self) -> None:
        pass


class WebhookTransport:
    """POST of the JSON object to one URL.

    2xx: sent.  410: the token is gone.  429 and 5xx: retried later, after Retry-After seconds if given.  Everything
    else, redirects too: refused.  No proxies and no credentials from the environment; certificates are checked against
    the system's.
    """

    def __init__(self, url: str) -> None:
        self._url = httpx.URL(url)
        self._client = httpx.AsyncClient(
            headers={"User-Agent": "wa", "Content-Type": "application/json"},
            timeout=limits.PUSH_REQUEST_MS_MAX / 1_000,
            limits=httpx.Limits(max_connections=limits.PUSH_CONCURRENCY_MAX),
            verify=ssl.create_default_context(),
            trust_env=False,
            follow_redirects=False,
        )

    async def send(self, platform: str, token: str, wake_id: str) -> Answer:
        try:
            # httpx bounds each read only; this bounds the request as a whole.
            async with asyncio.timeout(limits.PUSH_REQUEST_MS_MAX / 1_000):
                return await self._post(encode(platform, token, wake_id))
        except (httpx.HTTPError, TimeoutError) as error:
            return Answer(Verdict.FAILED, type(error).__name__)

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, body: bytes) -> Answer:
        async with self._client.stream("POST", self._url, content=body) as response:
            size = 0
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > limits.PUSH_RESPONSE_BYTES_MAX:
                    break
        status = response.status_code
        detail = f"status {status}"
        if response.is_success:
            return Answer(Verdict.SENT)
        if status == httpx.codes.GONE:
            return Answer(Verdict.GONE, detail)
        if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            return Answer(Verdict.FAILED, detail, _seconds(response.headers.get("Retry-After", "")))
        return Answer(Verdict.REFUSED, detail)


def _seconds(text: str) -> float | None:
    """The seconds of a Retry-After header; its form with a date is ignored."""
    wanted = text.strip()
    if not wanted.isdecimal() or not wanted.isascii():
        return None
    return min(float(wanted), limits.PUSH_BACKOFF_MS_MAX / 1_000)


def make_transport(push: Push) -> PushTransport:
    if push.kind == "file":
        return FileTransport(Path(push.where))
    if push.kind == "webhook":
        return WebhookTransport(push.where)
    raise LocalError(f"push {push.kind!r} needs no gateway")
