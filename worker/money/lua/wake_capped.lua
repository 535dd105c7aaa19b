-- prelude: clock wake_parked
-- flags: allow-oom
-- Jobs that wait for money ask again now: a cap has changed.
--
-- KEYS  1 rq:queues
-- Returns nothing. Again: no harm.
wake_parked(KEYS[1], {'budget'})
