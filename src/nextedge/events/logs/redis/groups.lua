-- Returns the names of the stream's groups. KEYS: log, stream.
local names = {}
for _, group in ipairs(groups(KEYS[2])) do names[#names + 1] = group['name'] end
return names
