"""``muxrec bench serve``: what one request costs the server, beside a bare search and a peer."""

from muxrec_serving.bench.command import serve_bench

__all__ = ["serve_bench"]
