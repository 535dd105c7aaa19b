"""Simulated providers and a simulated Slack, over real HTTP."""
