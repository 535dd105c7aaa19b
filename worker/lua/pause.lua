-- prelude: clock standing
-- flags: allow-oom
-- Set a flag.
--
-- KEYS  1 the flag   2 failover:pause   3 pause_ai_tasks   4 rq:suspended   5 rq:queues   6 failover:audit
-- ARGV  1 lasts (ms; 0: until resumed)   2 note (JSON: who, why, since, until, budget)   3 who   4 control channel
-- Invariant: the flag, its note and the queues' clocks change together; a resend changes nothing more.
pause_flag(KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2], ARGV[3], KEYS[6], ARGV[4])
stand_all(KEYS[3], KEYS[4], KEYS[5])
return 1
