-- prelude: clock accepted_order wake_parked
-- flags: allow-oom
-- Wake the jobs that wait for budget, because a cap has changed.
--
-- KEYS  1 rq:queues
-- Returns nothing. Calling it again does no harm.
wake_parked(KEYS[1], {'budget'})
