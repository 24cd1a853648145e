"""Contract: propose one for a table that nobody has described yet, and write `config/`."""
