"""How fast the pages are, how much they weigh, and what their viewers cost."""
