"""The peer: the same search behind a FastAPI endpoint as its tutorial writes one, same server.

``python -m muxrec_serving.bench.peer BUNDLE PORT`` serves until it is stopped.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.mp import MPServer

from muxrec.bundle import Bundle

LIVE = 256


def live_vectors(dim: int) -> np.ndarray:
    """Vectors that are no item's, the same for both servers: float32 ``[LIVE, dim]``, unit norm."""
    drawn = np.random.default_rng(1).normal(size=(LIVE, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def build_peer(folder: Path) -> FastAPI:
    """An application that searches for every request and lets the framework write the JSON."""
    bundle = Bundle.open(folder, verify=False)
    index = bundle.index()
    item_ids = bundle.item_ids.tolist()
    vectors = np.concatenate([bundle.vectors, live_vectors(bundle.dim)])
    names = [*item_ids, *(f"live-{number}" for number in range(LIVE))]
    positions = {name: position for position, name in enumerate(names)}
    app = FastAPI()

    @app.get("/items/{item_id}/similar")
    async def similar(item_id: str, k: int = 10) -> dict[str, Any]:
        found, scores = index.search(vectors[positions[item_id]][None], k + 1)
        neighbours = [
            {"item_id": item_ids[position], "score": float(score)}
            for position, score in zip(found[0].tolist(), scores[0], strict=True)
            if item_ids[position] != item_id
        ]
        return {"item_id": item_id, "neighbours": neighbours[:k]}

    return app


def main() -> None:
    """Serve the peer and say when it listens."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    MPServer(
        "peer",
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_level=LogLevels.warning,
    ).serve(target_loader=partial(build_peer, folder), wrap_loader=False)


if __name__ == "__main__":
    main()
