"""A look at a prepared data set before anything is trained on it: mmr validate-data."""
