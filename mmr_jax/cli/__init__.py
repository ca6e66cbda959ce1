"""The `mmr` command: one small file per sub-command, each with `run(arguments)`."""
