-- Renews the lease of a replica and returns the state of the log as of the renewal, in one step: an
-- append sees the renewal, or the renewal returns the append. KEYS: log, replicas. ARGV: name of the
-- replica; home, number of the renewal, generation and position that the replica confirms.
redis.call('HSET', KEYS[2], ARGV[1], table.concat({ARGV[2], ARGV[3], ARGV[4], ARGV[5]}, ' '))
return {state()}
