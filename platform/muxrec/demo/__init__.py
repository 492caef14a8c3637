"""The demo: a made-up shop all the way from its log to neighbours over HTTP."""
