"""`python -m failover_worker` is `failover`."""

from failover_worker.commands import failover

failover()
