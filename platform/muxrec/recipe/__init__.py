"""The recipe: one strict YAML that decides a whole run, from raw logs to the bundle."""
