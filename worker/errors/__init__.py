"""What each answer of a provider means: the error catalog, its classification, and times to wait."""
