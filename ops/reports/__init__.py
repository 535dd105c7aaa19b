"""The reports of the `failover` commands."""
