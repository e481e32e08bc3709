package state

import (
	"strconv"
	"strings"
)

// Every change is one script, so it happens whole or not at all and never beside another. A script that changes:
//
//   - answers a known request id with the first answer, and else keeps its answer under that id;
//   - gives the value a version above all it ever had: Redis' clock in µs, or the last version plus one. A counter would
//     start again after a deletion or the loss of a Redis, and a replica somewhere might take another value for its own;
//   - begins with a write that Redis refuses when it is full, or, where it frees memory, with one that it doesn't: Redis
//     lets a script that has written go on, so none stops half-way.
//
// A generation is a set of chunks. Values of one chunk are overwritten in place: they are read in one step, so nobody can
// have read half. A larger value gets a new generation and the old one can be read for a minute more, but only the latest
// old one: a value that is replaced without pause would fill Redis otherwise.
//
// More bytes than inline are staged by plain commands, and a script only moves keys. No loop is longer than a value has
// chunks.
//
// KEYS: meta, and the request's answer if it has an id. ARGV 1: 64 hexadecimal digits that identify the request's content,
// or "". ARGV 2: incarnation, or "". An answer is words. Those of a success are OK, what commit adds, and last the value's incarnation.
const prelude = `
local CHUNK = $CHUNK
local meta, reply = KEYS[1], KEYS[2]
if reply then
  local was = redis.call('GET', reply)
  if was then
    if string.sub(was, 1, 64) ~= ARGV[1] then return 'REUSED' end
    return string.sub(was, 65)
  end
end
local function answer(a)
  if reply then redis.call('SET', reply, ARGV[1] .. a, 'PX', $ANSWER) end
  return a
end
local function int(x) return string.format('%.0f', tonumber(x)) end
local function chunk(gen, i) return meta .. ':c:' .. gen .. ':' .. int(i) end
local function chunks(size) return math.ceil(tonumber(size) / CHUNK) end

local m = redis.call('HMGET', meta, 'v', 'n', 'g', 'x', 'og', 'on')
local last, size, gen, life = m[1], m[2], m[3], m[4] or ARGV[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local version = now
if last and tonumber(last) >= now then version = tonumber(last) + 1 end

-- The current generation can be read for a while, and the one before no longer. The caller removes that one's chunks, by
-- the two words that this returns: freeing 256 MiB here would take 15 ms. If the caller is gone, time removes them.
local function retire()
  local oldest = '- 0'
  if m[5] then
    oldest = m[5] .. ' ' .. m[6]
    redis.call('UNLINK', meta .. ':o:' .. m[5])
    redis.call('HDEL', meta, 'og', 'on')
  end
  if not size then return oldest end
  local n = chunks(size)
  if n <= 1 then
    redis.call('UNLINK', chunk(gen, 0))
    return oldest
  end
  for i = 0, n - 1 do redis.call('PEXPIRE', chunk(gen, i), $CHUNKTTL) end
  redis.call('SET', meta .. ':o:' .. gen, last, 'PX', $READER)
  redis.call('HSET', meta, 'og', gen, 'on', size)
  return oldest
end
local function commit(g, n)
  redis.call('HSET', meta, 'v', int(version), 'n', int(n), 'g', g, 't', int(now), 'x', life)
  if not size then redis.call('PERSIST', meta) end
  return 'OK ' .. int(version) .. ' ' .. int(n) .. ' ' .. int(now) .. ' ' .. g
end
`

// putScript replaces the value. ARGV 3: the version it must have, 0 for no value, "" for any. ARGV 4: the bytes, inline
// at most; or 5 and 6: generation and size of what was staged.
var putScript = newScript(lua(prelude + `
local current = '0'
if size then current = last end
if ARGV[3] ~= '' and ARGV[3] ~= current then return answer('MISMATCH ' .. current) end
if not size and ARGV[2] == '' then return 'NEW' end
if ARGV[5] then
  local n = chunks(ARGV[6])
  local alive = 0
  for i = 0, n - 1 do alive = alive + redis.call('PERSIST', chunk(ARGV[5], i)) end
  if alive < n then
    for i = 0, n - 1 do redis.call('UNLINK', chunk(ARGV[5], i)) end
    return 'LOST'
  end
  local oldest = retire()
  return answer(commit(ARGV[5], ARGV[6]) .. ' ' .. oldest .. ' ' .. life)
end
local data = ARGV[4]
local inplace = size and chunks(size) <= 1
local g = gen
if not inplace then g = int(version) end
if #data > 0 then
  redis.call('SET', chunk(g, 0), data)
elseif inplace then
  redis.call('UNLINK', chunk(g, 0))
end
local oldest = '- 0'
if not inplace then oldest = retire() end
return answer(commit(g, #data) .. ' ' .. oldest .. ' ' .. life)
`))

// spliceScript overwrites a range, or appends. ARGV 3: offset, or "" for the end. 4: the bytes. 5: the most bytes that the
// value may have. Or 6, 7 and 8: generation, length and offset of what was staged, cut at the chunks that it would touch
// at that offset; SHIFTED says that it would be cut elsewhere by now. The answer's sixth word is where the bytes landed.
var spliceScript = newScript(lua(prelude + `
local data, staged = ARGV[4], ARGV[6]
local len = #data
if staged then len = tonumber(ARGV[7]) end
local n = tonumber(size or 0)
local offset = n
if ARGV[3] ~= '' then offset = tonumber(ARGV[3]) end
local stop = offset + len
if stop > tonumber(ARGV[5]) then return answer('TOOLARGE ' .. int(stop)) end
if staged and (offset - tonumber(ARGV[8])) % CHUNK ~= 0 then return 'SHIFTED' end
if not size and ARGV[2] == '' then return 'NEW' end
local g = gen
if not size then g = int(version) end
if staged then
  local first, last = math.floor(offset / CHUNK), chunks(stop) - 1
  local shift = math.floor(tonumber(ARGV[8]) / CHUNK) - first
  for i = first, last do
    if redis.call('EXISTS', chunk(staged, i + shift)) == 0 then return 'LOST' end
  end
  for i = first, last do
    local from, piece = math.max(offset - i * CHUNK, 0), chunk(staged, i + shift)
    if from == 0 and stop >= math.min((i + 1) * CHUNK, n) then -- nothing of the old chunk stays
      redis.call('PERSIST', piece)
      redis.call('RENAME', piece, chunk(g, i))
    else
      redis.call('SETRANGE', chunk(g, i), int(from), redis.call('GET', piece))
      redis.call('UNLINK', piece)
    end
  end
else
  local at = 0
  while at < len do
    local from = (offset + at) % CHUNK
    local k = math.min(CHUNK - from, len - at)
    local piece = data
    if k < len then piece = string.sub(data, at + 1, at + k) end
    redis.call('SETRANGE', chunk(g, (offset + at - from) / CHUNK), int(from), piece)
    at = at + k
  end
end
if len > 0 then n = math.max(n, stop) end
return answer(commit(g, n) .. ' ' .. int(offset) .. ' ' .. life)
`))

// deleteScript leaves a tombstone, so that versions go on where they were.
var deleteScript = newScript(lua(prelude + `
if not size then return answer('NOVALUE') end
redis.call('PEXPIRE', meta, $TOMBSTONE)
local oldest = retire()
redis.call('HDEL', meta, 'n', 'g', 't', 'x')
redis.call('HSET', meta, 'v', int(version))
return answer('OK ' .. oldest .. ' ' .. life)
`))

// readScript gives version, size, time, generation and incarnation, and a range if it is short: see db.first.
var readScript = newScript(lua(`
local CHUNK = $CHUNK
local r = redis.call('HMGET', KEYS[1], 'v', 'n', 't', 'g', 'x')
if not r[2] then return {} end
local offset, len = tonumber(ARGV[1]), tonumber(ARGV[2])
local left = tonumber(r[2]) - offset
if len == 0 or len > left then len = left end
local first = offset % CHUNK
if len > $INLINE then len = 0 end
local i = (offset - first) / CHUNK
while len > 0 do
  local n = math.min(CHUNK - first, len)
  r[#r + 1] = redis.call('GETRANGE', KEYS[1] .. ':c:' .. r[4] .. ':' .. string.format('%.0f', i), first, first + n - 1)
  i, first, len = i + 1, 0, len - n
end
return r
`))

func lua(source string) string {
	ms := func(d interface{ Milliseconds() int64 }) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return strings.NewReplacer(
		"$CHUNKTTL", ms(chunkTTL), "$CHUNK", strconv.Itoa(chunkSize), "$INLINE", strconv.Itoa(inline), "$ANSWER", ms(answerTTL), "$READER", ms(readerTTL),
		"$TOMBSTONE", ms(tombstoneTTL),
	).Replace(source)
}
