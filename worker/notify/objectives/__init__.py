"""What people are told of objectives."""
