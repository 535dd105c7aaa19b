"""Importers of foreign configuration and of provider costs."""
