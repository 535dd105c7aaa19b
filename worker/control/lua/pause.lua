-- prelude: clock hint audit_trail running_clock pause_flags
-- flags: allow-oom
-- Set a pause flag or a kill switch.
--
-- KEYS  1 the flag   2 failover:pause   3 pause_ai_tasks   4 rq:suspended   5 rq:queues   6 failover:audit
-- ARGV  1 lasts (ms; 0: until resumed)   2 note (JSON: who, why, since)   3 who   4 control channel
-- Returns the note as it is now.
-- Invariant: the flag, its note and the queues' clocks change together; a pause that is already set is never shortened.
pause_flag(KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2], ARGV[3], KEYS[6], ARGV[4])
stand_all(KEYS[3], KEYS[4], KEYS[5])
stand_tenant(KEYS[1])
return redis.call('HGET', KEYS[2], KEYS[1])
