"""The load: kept connections that ask one request after the other, in a process of their own.

``python -m muxrec_serving.bench.load PORT CONNECTIONS COUNT`` reads the requests as JSON strings,
one per line, from standard input and prints one JSON object: seconds, p50 and p99 in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

LENGTH = b"content-length: "


async def _client(port: int, requests: list[bytes], waits: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server answered {head[:80]!r}")
        await reader.readexactly(int(head.partition(LENGTH)[2].partition(b"\r\n")[0]))
        waits.append(time.perf_counter() - started)
    writer.close()


async def run(port: int, connections: int, count: int, requests: list[bytes]) -> dict[str, float]:
    """Send ``count`` requests over ``connections`` kept connections, cycling through them."""
    every = [requests[n % len(requests)] for n in range(count)]
    waits: list[float] = []
    started = time.perf_counter()
    await asyncio.gather(
        *(_client(port, every[first::connections], waits) for first in range(connections))
    )
    seconds = time.perf_counter() - started
    waits.sort()
    p50, p99 = (1000 * waits[int(share * (len(waits) - 1))] for share in (0.5, 0.99))
    return {"seconds": seconds, "p50_ms": p50, "p99_ms": p99}


def main() -> None:
    """Run one load and print what came of it."""
    port, connections, count = (int(argument) for argument in sys.argv[1:])
    requests = [json.loads(line).encode() for line in sys.stdin]
    sys.stdout.write(json.dumps(asyncio.run(run(port, connections, count, requests))))


if __name__ == "__main__":
    main()
