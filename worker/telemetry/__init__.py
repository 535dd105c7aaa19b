"""Traces and metrics of what a worker does: subscribers of its events. Nothing here is loaded while telemetry is off."""
