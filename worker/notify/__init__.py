"""Incidents, and the channels that send them to people.

The script that changes a job also counts what happened to it (producer/lua/shared/dead_letters.lua). One worker, the
notifier, reads the current state (routes, pauses, late jobs, workers). It turns both into incidents, and sends each channel
the parts that this channel does not have yet. So a Slack outage loses no message, and no queue can overflow.
"""
