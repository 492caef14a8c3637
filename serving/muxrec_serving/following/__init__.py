"""Which bundle is served: folders, the registry, swap, refusal, rollback."""
