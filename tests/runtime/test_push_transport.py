"""What leaves the server for a push, and what an endpoint's answers mean: the real client against real sockets."""

import asyncio
import json
import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.endpoint import Endpoint
from wa import limits
from wa.config import Push
from wa.errors import LocalError
from wa.runtime.push_transport import Answer, Verdict, WebhookTransport, make_transport


@pytest.fixture
def endpoint():
    with Endpoint() as endpoint:
        yield endpoint


def post(url, *, times=1, **more):
    async def main():
        transport = make_transport(Push("webhook", url))
        try:
            return [await transport.send("fcm", "the token ü", "0123") for _ in range(times)]
        finally:
            await transport.close()

    return asyncio.run(main())


def test_three_fields_and_nothing_else(endpoint):
    assert post(endpoint.url) == [Answer(Verdict.SENT)]
    (raw,) = endpoint.raw
    head, _, body = raw.partition(b"\r\n\r\n")
    assert json.loads(body) == {"platform": "fcm", "token": "the token ü", "id": "0123"}
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /wake HTTP/1.1"
    names = {line.split(":")[0].lower() for line in lines}
    assert names == {"host", "accept", "accept-encoding", "connection", "user-agent", "content-type", "content-length"}
    assert "User-Agent: wa" in lines


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, {}, Answer(Verdict.SENT)),
        (202, {}, Answer(Verdict.SENT)),
        (410, {}, Answer(Verdict.GONE, "status 410")),
        (429, {"Retry-After": " 7 "}, Answer(Verdict.FAILED, "status 429", 7.0)),
        (503, {"Retry-After": "100000"}, Answer(Verdict.FAILED, "status 503", limits.PUSH_BACKOFF_MS_MAX / 1_000)),
        (503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, Answer(Verdict.FAILED, "status 503")),
        (503, {"Retry-After": "-1"}, Answer(Verdict.FAILED, "status 503")),
        (500, {}, Answer(Verdict.FAILED, "status 500")),
        (302, {"Location": "http://127.0.0.1:1/"}, Answer(Verdict.REFUSED, "status 302")),
        (400, {}, Answer(Verdict.REFUSED, "status 400")),
        (404, {}, Answer(Verdict.REFUSED, "status 404")),
    ],
)
def test_what_an_answer_means(endpoint, status, headers, expected):
    endpoint.answer = lambda body: (status, headers)
    assert post(endpoint.url) == [expected]
    assert len(endpoint.raw) == 1


def test_a_slow_endpoint_is_not_waited_for(endpoint, monkeypatch):
    monkeypatch.setattr(limits, "PUSH_REQUEST_MS_MAX", 50)
    endpoint.open.clear()
    (answer,) = post(endpoint.url)
    assert answer.verdict is Verdict.FAILED


def test_an_endless_answer_is_cut(endpoint):
    endpoint.answer = lambda body: (200, {"Content-Length": str(10**12)})
    endpoint.answer_bytes = 4 * limits.PUSH_RESPONSE_BYTES_MAX
    assert post(endpoint.url, times=2) == [Answer(Verdict.SENT)] * 2


def test_nobody_there():
    with Endpoint() as gone:
        pass
    (answer,) = post(gone.url)
    assert answer == Answer(Verdict.FAILED, "ConnectError")


def test_something_else_than_http():
    async def main():
        async def serve(reader, writer):
            writer.write(b"220 mail.example.org ESMTP\r\n")
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = WebhookTransport(f"http://127.0.0.1:{port}/")
        answer = await transport.send("fcm", "t", "0")
        await transport.close()
        server.close()
        await server.wait_closed()
        return answer

    assert asyncio.run(main()).verdict is Verdict.FAILED


def self_signed(directory):
    """A TLS server's context whose certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, pem


@pytest.mark.parametrize("trusted", [False, True])
def test_a_certificate_is_checked(tmp_path, monkeypatch, trusted):
    context, pem = self_signed(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    requests = []

    async def main():
        async def serve(reader, writer):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 Fine\r\n\r\n")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        transport = WebhookTransport(f"https://localhost:{port}/")
        answer = await transport.send("fcm", "t", "0")
        await transport.close()
        server.close()
        await server.wait_closed()
        for _ in range(9):  # asyncio closes what a failed handshake left in later turns of its loop
            await asyncio.sleep(0)
        return answer

    assert asyncio.run(main()).verdict is (Verdict.SENT if trusted else Verdict.FAILED)
    assert len(requests) == trusted


def test_a_file_gets_a_line_for_each(tmp_path):
    path = tmp_path / "pushes"

    async def main():
        transport = make_transport(Push("file", str(path)))
        answers = [await transport.send("fcm", f"token {n}", str(n)) for n in (1, 2)]
        await transport.close()
        return answers

    assert asyncio.run(main()) == [Answer(Verdict.SENT)] * 2
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"platform": "fcm", "token": f"token {n}", "id": str(n)} for n in (1, 2)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written(tmp_path):
    transport = make_transport(Push("file", str(tmp_path)))
    assert asyncio.run(transport.send("fcm", "t", "0")) == Answer(Verdict.FAILED, "Is a directory")


def test_none_has_no_transport():
    with pytest.raises(LocalError, match="needs no gateway"):
        make_transport(Push())
