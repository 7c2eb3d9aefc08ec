"""Other people's weights, loaded as they are."""
