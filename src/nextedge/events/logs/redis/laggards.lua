-- Returns the state, and names and renewals of the replicas that have not confirmed a position.
-- KEYS: log, replicas. ARGV: generation, position.
local now = state()
-- server and log of now, but the caller's position: later events are waited for by their own appends
return {now, laggards(KEYS[2], {now[1], now[2], ARGV[1], ARGV[2]})}
