"""From raw data to a model that passed its gate. `ml --help` shows the way."""
