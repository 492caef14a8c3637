"""HTTP: routes, checks at the edge, the page."""
