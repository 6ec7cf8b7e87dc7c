"""Reading a file from an address that another party named: where it may lie, how large and how slow it may be."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from careedit.net import Destinations, FetchError, RefusedHostError, fetch

HERE = Destinations(("127.0.0.1",), "The picture", "https://example.org/a.png", "list it")
NOWHERE = Destinations((), "The picture", "https://example.org/a.png", "list it")


@pytest.fixture(scope="module")
def server():
    """Serves /N as N bytes, /moved as a redirect to /3, /slow as a header that never ends, /busy as 503."""
    gate = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            if name == "slow":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nx-a: ")
                while not gate.wait(0.05):  # every byte comes in time, the whole never does
                    try:
                        self.wfile.write(b"a")
                    except OSError:
                        return
                return
            self.send_response({"moved": 302, "busy": 503}.get(name, 200))
            if name == "moved":
                self.send_header("location", "/3")
            self.end_headers()
            if name.isdigit():
                self.wfile.write(b"x" * int(name))

        def log_message(self, *args) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    gate.set()
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_file_of_an_allowed_host_is_read(server):
    assert fetch(f"{server}/1000", HERE, max_bytes=1000, timeout_s=10) == b"x" * 1000


@pytest.mark.parametrize(
    ("path", "words", "again"),
    [
        ("/1001", "larger than", False),
        ("/moved", "302 (a redirect, which is not followed)", False),
        ("/busy", "503", True),
        ("/slow", "took longer than 0.3 s", True),
    ],
)
def test_what_is_too_large_too_slow_or_elsewhere_is_an_error(server, path, words, again):
    with pytest.raises(FetchError) as caught:
        fetch(server + path, HERE, max_bytes=1000, timeout_s=0.3 if path == "/slow" else 10)
    assert words in str(caught.value) and caught.value.again is again


def test_a_private_host_is_refused_however_it_is_written(server):
    port = server.rpartition(":")[2]
    # "127.1" and the number are no addresses to a parser, but are to a resolver: refused when the connection is made.
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "127.1", "2130706433", "[::ffff:127.0.0.1]"):
        with pytest.raises(RefusedHostError, match="not on the public internet; list it"):
            fetch(f"http://{host}:{port}/3", NOWHERE, max_bytes=1000, timeout_s=10)
