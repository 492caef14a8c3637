"""What this machine has, what muxrec can use of it, and what does not fit together."""
