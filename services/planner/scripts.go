package planner

// Each change of the journal is one script, so it happens whole or not at all, and the same script asks whether its writer still
// leads: what a planner that was frozen or cut off says later changes nothing. All can be run again when the answer was lost.
// None has a loop. They use only commands that every Redis since 6 and its stand-in miniredis have.

// fence begins a script that writes. KEYS 1: the lease. ARGV 1: the writer's.
const fence = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'LOST' end
`

// acquireScript. KEYS: lease, epoch. ARGV: token and place, ms, a lease whose holder is known to be dead.
var acquireScript = newScript(`
local was = redis.call('GET', KEYS[1])
if was and was ~= ARGV[3] then return was end
local lease = string.format('%.0f', redis.call('INCR', KEYS[2])) .. ' ' .. ARGV[1]
redis.call('SET', KEYS[1], lease, 'PX', ARGV[2])
return lease
`)

// renewScript takes a lease that ran out again, if nobody had it since. KEYS: lease, epoch. ARGV: lease, ms, its epoch.
var renewScript = newScript(`
local was = redis.call('GET', KEYS[1])
if was and was ~= ARGV[1] then return 'LOST' end
if not was then
  local epoch = redis.call('GET', KEYS[2])
  if epoch and epoch ~= ARGV[3] then return 'LOST' end
  redis.call('SET', KEYS[2], ARGV[3])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'OK'
`)

var releaseScript = newScript(fence + `
redis.call('DEL', KEYS[1])
return 'OK'
`)

// acceptScript writes a call for the first time. If its request id is another's it gives what is known of that: id and body hash.
// KEYS: lease, call, live, request. ARGV: lease, id, meta, input, epoch of the input's part or ”, µs, whether there is a request
// id, body hash.
var acceptScript = newScript(fence + `
if ARGV[7] == '1' then
  local was = redis.call('GET', KEYS[4])
  if was and string.sub(was, 1, 32) ~= ARGV[2] then return 'KNOWN' .. was end
end
if ARGV[5] ~= '' then
  local part = KEYS[2] .. ':i:' .. ARGV[5]
  if redis.call('EXISTS', part) == 0 then return 'PART' end
  redis.call('PERSIST', part)
end
redis.call('HSET', KEYS[2], 'm', ARGV[3], 'i', ARGV[4], 'ip', ARGV[5])
redis.call('PERSIST', KEYS[2])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[2])
if ARGV[7] == '1' then redis.call('SET', KEYS[4], ARGV[2] .. ARGV[8]) end
return 'OK'
`)

// updateScript writes what is new of a call that has not ended. KEYS: lease, call. ARGV: lease, meta.
var updateScript = newScript(fence + `
if redis.call('HEXISTS', KEYS[2], 'm') == 0 then return 'GONE' end
redis.call('HSET', KEYS[2], 'm', ARGV[2])
return 'OK'
`)

// finishScript writes a call's end. KEYS: lease, call, live, ended, dead, hooks, request. ARGV: lease, id, meta, output, epoch
// of its part, log, epoch of its part, ms to keep it, ms of its end, whether it is a dead letter, ms when its webhook is due or 0,
// how many ended ones are listed, ms that dead letters are kept.
var finishScript = newScript(fence + `
local call, id = KEYS[2], ARGV[2]
for _, p in ipairs({{':o:', ARGV[5]}, {':l:', ARGV[7]}}) do
  if p[2] ~= '' then
    if redis.call('EXISTS', call .. p[1] .. p[2]) == 0 then return 'PART' end
    redis.call('PEXPIRE', call .. p[1] .. p[2], ARGV[8])
  end
end
redis.call('HSET', call, 'm', ARGV[3], 'o', ARGV[4], 'op', ARGV[5], 'l', ARGV[6], 'lp', ARGV[7])
local input = redis.call('HGET', call, 'ip')
if ARGV[10] == '1' then
  if input and input ~= '' then redis.call('PEXPIRE', call .. ':i:' .. input, ARGV[8]) end
  redis.call('ZADD', KEYS[5], ARGV[9], id)
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', ARGV[9] - ARGV[13]))
else
  if input and input ~= '' then redis.call('UNLINK', call .. ':i:' .. input) end
  redis.call('HDEL', call, 'i', 'ip')
end
redis.call('PEXPIRE', call, ARGV[8])
redis.call('ZREM', KEYS[3], id)
redis.call('ZADD', KEYS[4], ARGV[9], id)
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - ARGV[12])
if ARGV[11] ~= '0' then redis.call('ZADD', KEYS[6], ARGV[11], id) end
local request = redis.call('GET', KEYS[7])
if request and string.sub(request, 1, 32) == id then redis.call('PEXPIRE', KEYS[7], ARGV[8]) end
return 'OK'
`)

// removeScript makes it as if a call had never been. KEYS: lease, call, live, ended, dead, hooks, request. ARGV: lease, id.
var removeScript = newScript(fence + `
local call, id = KEYS[2], ARGV[2]
local parts = redis.call('HMGET', call, 'ip', 'op', 'lp')
for i, kind in ipairs({':i:', ':o:', ':l:'}) do
  if parts[i] and parts[i] ~= '' then redis.call('UNLINK', call .. kind .. parts[i]) end
end
redis.call('UNLINK', call)
for i = 3, 6 do redis.call('ZREM', KEYS[i], id) end
local request = redis.call('GET', KEYS[7])
if request and string.sub(request, 1, 32) == id then redis.call('DEL', KEYS[7]) end
return 'OK'
`)

// hookScript. KEYS: lease, hooks, call. ARGV: lease, id, tries, ms when it is due next or 0.
var hookScript = newScript(fence + `
if ARGV[4] == '0' or redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[2])
  return 'OK'
end
redis.call('HSET', KEYS[3], 'h', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
return 'OK'
`)

// setScript. KEYS: lease, key. ARGV: lease, value.
var setScript = newScript(fence + `
redis.call('SET', KEYS[2], ARGV[2])
return 'OK'
`)
