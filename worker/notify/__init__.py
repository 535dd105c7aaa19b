"""People: incidents, and the channels that tell of them.

What happened to a job is counted in the script that changes the job (producer/lua/dead.lua); what stands (routes, pauses, late
jobs, workers) is looked at by one worker, the notifier. It folds both into incidents, and tells each channel of each
incident what it has not been told: so an outage of Slack loses nothing, and needs no queue that could overflow.
"""
