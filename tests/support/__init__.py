"""What tests share: a workshop of real processes, a proxy that loses replies, clocks, jobs, and straight ways to the server."""
