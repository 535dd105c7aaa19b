"""Jobs by cron lines (policies/schedules.yaml): one of the workers submits them at their times."""
