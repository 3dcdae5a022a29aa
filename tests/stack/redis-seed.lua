-- Keys like those of n8n's queue (database 0) and others (database 1), a few
-- thousand in each. Takes the number of the database.
local db = tonumber(ARGV[1])
local call = redis.call
local all_bytes = {}
for b = 0, 255 do all_bytes[#all_bytes + 1] = string.char(b) end
all_bytes = table.concat(all_bytes)
-- 2100-01-01, in milliseconds: far enough never to fall due.
local far = 4102444800000

call('FLUSHDB')
if db == 0 then
  for i = 1, 1500 do
    local id = tostring(i)
    call('HSET', 'bull:jobs:' .. id, 'name', '__default__', 'data', '{"workflowId":"wf' .. (i % 120) .. '","executionId":"' .. i .. '","loadStaticData":false}',
      'opts', '{"priority":1000,"removeOnComplete":true,"attempts":0,"delay":0,"timestamp":' .. (1750000000000 + i) .. '}',
      'progress', '0', 'delay', '0', 'timestamp', tostring(1750000000000 + i), 'attemptsMade', tostring(i % 3))
    if i % 5 == 0 then call('PEXPIREAT', 'bull:jobs:' .. id, far + i) end
    if i % 3 == 0 then call('LPUSH', 'bull:jobs:wait', id) end
    if i % 3 == 1 then call('ZADD', 'bull:jobs:completed', 1750000000000 + i, id) end
    if i % 3 == 2 then call('ZADD', 'bull:jobs:failed', 1750000000000 + i, id) end
    call('ZADD', 'bull:jobs:priority', 1000 + i % 10, id)
    call('XADD', 'bull:jobs:events', (1750000000 + i) .. '-' .. (i % 2), 'event', 'completed', 'jobId', id)
  end
  call('SET', 'bull:jobs:id', '1500')
  call('SADD', 'bull:jobs:stalled', '3', '6', 'nine')
  call('SET', 'bull:jobs:meta-paused', '1')
  call('SET', 'n8n:main_instance_leader', 'main-abcdef')
  call('PEXPIREAT', 'n8n:main_instance_leader', far)
  call('SET', 'n8n:cache:webhooks', '{"a":1}', 'PXAT', far)
  for i = 1, 800 do
    call('SET', 'n8n:cache:workflow-project:wf' .. i, '{"id":"' .. redis.sha1hex(i) .. '"}', 'PXAT', far + i)
  end
  call('XGROUP', 'CREATE', 'bull:jobs:events', 'workers', '0')
  call('XREADGROUP', 'GROUP', 'workers', 'worker-1', 'COUNT', '5', 'STREAMS', 'bull:jobs:events', '>')
  call('XDEL', 'bull:jobs:events', '1750000007-1')
else
  for i = 1, 1000 do call('SET', 'key:' .. i, string.rep(redis.sha1hex(i), 1 + i % 20)) end
  for i = 1, 300 do call('HSET', 'hash:large', 'field' .. i, 'value' .. i) end
  for i = 1, 700 do
    call('SADD', 'set:integers', i)
    call('SADD', 'set:words', 'word' .. i)
    call('ZADD', 'zset:large', i / 7, 'member' .. i)
    call('RPUSH', 'list:large', 'element' .. i)
  end
end
call('SET', 'binary', all_bytes)
call('SET', all_bytes, 'name of all bytes')
call('SET', '', 'empty name')
call('SET', 'empty', '')
call('SET', 'integer', '-9223372036854775808')
call('SET', 'large', string.rep(all_bytes, 4096))
call('SET', 'compressible', string.rep('a', 300000))
call('HSET', 'hash:binary', all_bytes, all_bytes, '', '')
call('RPUSH', 'list:binary', '', all_bytes, '1', '-1', string.rep('x', 20000))
call('SADD', 'set:binary', '', all_bytes)
call('ZADD', 'zset:scores', '-inf', 'a', '+inf', 'b', '0.1', 'c', '1e308', all_bytes, '-0', 'd')
call('SETBIT', 'bits', 100000, 1)
call('PFADD', 'hyperloglog', 'a', 'b', 'c')
call('GEOADD', 'geo', 13.361389, 38.115556, 'Palermo')
return call('DBSIZE')
