"""A real HTTP server for one file, which can break off, resume, or answer something else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

CONTENT = bytes(range(256)) * 2_000


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[tuple[str, list[str | None]]]:
    """A server that answers its n-th request with `answer(handler, n)`; its address, and the ranges asked for."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Range"])
            answer(self, len(asked))

        def log_message(self, format: str, *values: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/dataset.zip", asked
        finally:
            server.shutdown()
            thread.join()


def send(handler: BaseHTTPRequestHandler, start: int, stop: int, etag: str = '"one"', content: bytes = CONTENT) -> None:
    """Promise everything from `start`, send until `stop`."""
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(content) - start))
    if etag:
        handler.send_header("ETag", etag)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.end_headers()
    handler.wfile.write(content[start:stop])
