-- One line for each key of the database that is selected: name, type, time of
-- expiry, number of elements and SHA-1 of the contents in an order of their
-- own. DUMP would not do: it shows how a value happens to be encoded. Takes
-- the number of the database.
local call = redis.call

local function shown(s)
  return (string.gsub(s, '[^%w:._/-]', function(c) return string.format('%%%02x', string.byte(c)) end))
end

local function flat(value)
  if type(value) == 'table' then
    local parts = {}
    for i, v in ipairs(value) do parts[i] = flat(v) end
    return '[' .. table.concat(parts) .. ']'
  end
  value = tostring(value)
  return #value .. ':' .. value
end

local function sorted(items)
  table.sort(items)
  return items
end

local read = {
  string = function(key) return {call('GET', key)} end,
  list = function(key) return call('LRANGE', key, 0, -1) end,
  set = function(key) return sorted(call('SMEMBERS', key)) end,
  zset = function(key) return call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  hash = function(key)
    local fields, pairs_ = call('HGETALL', key), {}
    for i = 1, #fields, 2 do pairs_[#pairs_ + 1] = flat(fields[i]) .. flat(fields[i + 1]) end
    return sorted(pairs_)
  end,
  stream = function(key)
    local entries = call('XRANGE', key, '-', '+')
    local info = call('XINFO', 'STREAM', key)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' or info[i] == 'max-deleted-entry-id' or info[i] == 'entries-added' then
        entries[#entries + 1] = {info[i], info[i + 1]}
      end
    end
    for _, group in ipairs(call('XINFO', 'GROUPS', key)) do
      entries[#entries + 1] = group
      for _, pending in ipairs(call('XPENDING', key, group[2], '-', '+', 100000)) do
        -- Without the idle time.
        entries[#entries + 1] = {pending[1], pending[2], pending[4]}
      end
    end
    return entries
  end,
}

local lines = {}
for _, key in ipairs(sorted(call('KEYS', '*'))) do
  local kind = call('TYPE', key).ok
  local items = read[kind](key)
  lines[#lines + 1] = table.concat({'db' .. ARGV[1], shown(key), kind, call('PEXPIRETIME', key), #items, redis.sha1hex(flat(items))}, '|')
end
return table.concat(lines, '\n')
