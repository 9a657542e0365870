"""The server: slow clients, many of them, and its end with requests in flight."""

import json
import socket
import threading
import time
from concurrent.futures import CancelledError
from urllib.parse import urlsplit

import pytest

from coded_jax.service.config import WebConfig
from coded_jax.service.web import app, server
from tests.service.web.fakes import (
    IMAGE,
    PATIENCE,
    Service,
    ask,
    connect,
    listening,
    npy,
)

BODY = npy(IMAGE)
CHUNKED = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)
HEAD = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n"


def send(url, data):
    """A connection over which no more than this is sent."""
    parts = urlsplit(url)
    sent = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)
    sent.sendall(data)
    return sent


def read(connection):
    """All that comes until the other side hangs up."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionResetError:
        pass
    connection.close()
    return b"".join(parts)


STALLS = {
    "nothing": b"",
    "half a head": HEAD.encode(),
    "no body": f"{HEAD}\r\n".encode(),
    "half a body": f"{HEAD}\r\n".encode() + BODY[:500],
    "half a chunk": CHUNKED + b"100\r\nhalf",
}


def test_clients_that_stall_hold_nobody_up():
    settings = WebConfig(port=0, read_seconds=2)
    with listening(Service(), settings=settings) as url:
        stalled = [send(url, STALLS[name]) for name in STALLS for _ in range(10)]
        for _ in range(5):
            assert ask(url, "/predict", BODY)[0] == 200
        for connection in stalled:  # told, and hung up on
            told = read(connection)
            assert told.startswith(b"HTTP/1.1 408 ") and b'{"error": "request: ' in told


def test_a_client_that_does_not_read_is_given_up():
    sent = threading.Event()

    async def much(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        part = {"type": "http.response.body", "body": bytes(2**20), "more_body": True}
        for _ in range(1000):
            await send(part)  # waits for the client, and no more once it is given up
        sent.set()

    port, close = server.listen(much, WebConfig(port=0, read_seconds=0.5))
    connection = send(f"http://127.0.0.1:{port}", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert sent.wait(PATIENCE)
    assert len(read(connection)) < 1000 * 2**20
    close()


def test_more_connections_than_may_be():
    settings = WebConfig(port=0, connections=2)
    with listening(Service(), settings=settings) as url:
        kept = [connect(url) for _ in range(2)]
        for connection in kept:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'
        status, headers, answer = ask(url, "/readyz")
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer == {"error": "too many connections"}
        for connection in kept:
            connection.close()
        while ask(url, "/readyz")[0] != 200:
            time.sleep(0.01)


def close_in_thread(service, **settings):
    """A front, whose end is begun by the function that is returned."""
    config = WebConfig(port=0, **settings)
    port, close = server.listen(app.create_app(service, config, lambda: None), config)
    return f"http://127.0.0.1:{port}", threading.Thread(target=close)


def test_requests_in_flight_are_answered_before_the_end():
    service = Service(waits=True)
    url, ending = close_in_thread(service)
    idle, asking = connect(url), connect(url)
    idle.request("GET", "/readyz")
    assert idle.getresponse().read() == b'{"status":"ok"}'
    asking.request("POST", "/predict", BODY)
    assert service.arrived.acquire(timeout=PATIENCE)
    ending.start()
    for path, body in (("/readyz", None), ("/predict", BODY)):
        while (answer := ask(url, path, body))[0] == 200:
            time.sleep(0.01)
        assert answer[2] == {"error": "the service is being ended"}
    assert ask(url, "/healthz")[0] == 200
    assert ending.is_alive()
    service.answer(service.futures[0])
    assert asking.getresponse().status == 200
    ending.join(PATIENCE)
    assert not ending.is_alive()
    with pytest.raises(ConnectionRefusedError):
        ask(url, "/healthz")


def test_requests_that_take_longer_are_cut_off():
    service = Service(waits=True)
    url, ending = close_in_thread(service, drain=0.2)
    asking = connect(url)
    asking.request("POST", "/predict", BODY)
    stalled = send(url, STALLS["half a body"])
    assert service.arrived.acquire(timeout=PATIENCE)
    ending.start()
    answer = asking.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (503, "close")
    assert json.load(answer) == {"error": "the service is being ended"}
    with pytest.raises(CancelledError):  # soon after
        service.futures[0].result(timeout=PATIENCE)
    ending.join(PATIENCE)
    assert not ending.is_alive()
    read(stalled)
