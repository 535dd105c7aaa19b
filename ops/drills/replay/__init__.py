"""An outage of the past with a real trace of arrivals, through today's routes and policies, in simulated time."""
