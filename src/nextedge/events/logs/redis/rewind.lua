-- Sets a group back to before an event. A group that has not read so far keeps its position: to rewind
-- never skips events. KEYS: log, stream. ARGV: group, the position to go on after, how many events are
-- up to there, the event to deliver again.
for _, group in ipairs(groups(KEYS[2])) do
  if group['name'] == ARGV[1] then
    local wanted, waits = ARGV[4], nil
    if group['pending'] > 0 then waits = redis.call('XPENDING', KEYS[2], ARGV[1])[2] end
    if (waits and after(waits, wanted)) or
       (not waits and not after(wanted, group['last-delivered-id'])) then
      -- a new group, because XGROUP SETID would leave the pending entries of the group
      redis.call('XGROUP', 'DESTROY', KEYS[2], ARGV[1])
      redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[1], ARGV[2], 'ENTRIESREAD', ARGV[3])
    end
  end
end
