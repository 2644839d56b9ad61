"""A WebSocket server of another kind than the policy server."""

import threading
from contextlib import contextmanager

from websockets.sync.server import serve


@contextmanager
def other_server(handler):
    """A WebSocket server that is not ours; gives its URL."""
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(10)
