-- Removes replicas from the registered ones. KEYS: log, replicas. ARGV: names and renewals.
for i = 1, #ARGV, 2 do
  local lease = redis.call('HGET', KEYS[2], ARGV[i])
  -- a replica with a later renewal holds a lease: appends must go on waiting for it
  if lease and string.match(lease, '%S+ (%d+)') == ARGV[i + 1] then
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
