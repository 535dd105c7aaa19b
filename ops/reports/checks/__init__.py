"""The checks of `failover doctor`, one file for each thing that is looked at."""
