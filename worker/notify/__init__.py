"""Who is told what: incidents, and the channels that carry them.

What happened to a job is counted by the script that changes the job (lua/shared/dead_letters.lua). The current state
(routes, pauses, late jobs, workers) is read by one worker, the notifier. It turns both into incidents, and sends each
channel what that channel has not been sent. So a Slack outage loses nothing, and needs no queue that could overflow.
"""
