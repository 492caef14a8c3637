"""``muxrec bench compression``: quality against bytes of embedding table methods."""
