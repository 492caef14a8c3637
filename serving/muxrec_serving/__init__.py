"""The online item-to-item service: verified bundle in, neighbours over HTTP out; no torch."""
