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
// KEYS: meta; the request's answer if it has an id; lock and readers of a fence. ARGV 1: 64 hexadecimal digits that identify
// the request's content, or "" without an id. ARGV 2: incarnation, or "". ARGV 3: token of the fence, or "". An answer is words. Those of a
// success are OK, what commit adds, and last the value's incarnation.
const prelude = `
local CHUNK = $CHUNK
local meta, reply = KEYS[1], ARGV[1] ~= '' and KEYS[2]
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
local function marks(gen) return meta .. ':w:' .. gen end
local function chunks(size) return math.ceil(tonumber(size) / CHUNK) end

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
if ARGV[3] ~= '' then
  local held = redis.call('HMGET', KEYS[#KEYS - 1], 'w', 'u')
  local till = held[1] == ARGV[3] and held[2] or redis.call('ZSCORE', KEYS[#KEYS], ARGV[3]) or 0
  if tonumber(till) * 1000 <= now then return 'FENCED' end
end

local m = redis.call('HMGET', meta, 'v', 'n', 'g', 'x', 'og', 'on', 'b', 'bn', 'e')
local last, size, gen, life = m[1], m[2], m[3], m[4] or ARGV[2]
local base, based, ends = m[7], m[8] or 0, m[9]
local version = now
if last and tonumber(last) >= now then version = tonumber(last) + 1 end

-- What belongs to a value that will end ends a little after it.
local function keep(name)
  if ends then redis.call('PEXPIREAT', name, int(ends + $CHUNKTTL)) end
end

-- The current generation can be read for a while, and the one before no longer. The caller removes that one's chunks, by
-- the two words that this returns: freeing 256 MiB here would take 15 ms. If the caller is gone, time removes them.
local function retire()
  local oldest = '- 0'
  if m[5] then
    oldest = m[5] .. ' ' .. m[6]
    redis.call('UNLINK', meta .. ':o:' .. m[5], marks(m[5]))
    redis.call('HDEL', meta, 'og', 'on')
  end
  if not size then return oldest end
  local n = chunks(size)
  if n <= 1 then
    redis.call('UNLINK', chunk(gen, 0), marks(gen))
    return oldest
  end
  for i = 0, n - 1 do redis.call('PEXPIRE', chunk(gen, i), $CHUNKTTL) end
  redis.call('PEXPIRE', marks(gen), $CHUNKTTL)
  redis.call('SET', meta .. ':o:' .. gen, last .. ' ' .. based, 'PX', $READER)
  redis.call('HSET', meta, 'og', gen, 'on', size)
  return oldest
end

-- Chunks that changed, with the bytes that each has now.
local touched = {}
local function write(g, offset, data)
  local at, len = 0, #data
  while at < len do
    local from = (offset + at) % CHUNK
    local k = math.min(CHUNK - from, len - at)
    local piece = data
    if k < len then piece = string.sub(data, at + 1, at + k) end
    local i = (offset + at - from) / CHUNK
    touched[i] = redis.call('SETRANGE', chunk(g, i), int(from), piece)
    at = at + k
  end
end
-- The newest version until now that changed any of them.
local function previous()
  if not size then return int(last or 0) end
  local newest = tonumber(base or last)
  for i in pairs(touched) do
    local mark = redis.call('HGET', marks(gen), int(i))
    if mark then newest = math.max(newest, tonumber(string.match(mark, '^%d+'))) end
  end
  return int(newest)
end
local function commit(g, n)
  local was = tonumber(size or 0)
  if tonumber(n) <= CHUNK then -- b and bn tell all of a value of one chunk
    if was > CHUNK then
      redis.call('UNLINK', marks(g))
      touched[0] = touched[0] or redis.call('STRLEN', chunk(g, 0))
    end
    if touched[0] then base, based = version, touched[0] end
    keep(chunk(g, 0))
  else
    for i, bytes in pairs(touched) do
      redis.call('HSET', marks(g), int(i), int(version) .. ' ' .. int(bytes))
      keep(chunk(g, i))
    end
    if next(touched) then keep(marks(g)) end
  end
  if not size then
    redis.call('PERSIST', meta)
    base = version
  end
  redis.call('HSET', meta, 'v', int(version), 'n', int(n), 'g', g, 't', int(now), 'x', life, 'b', int(base or last), 'bn', int(based))
  redis.call('PUBLISH', meta .. ':v', int(version))
  return 'OK ' .. int(version) .. ' ' .. int(n) .. ' ' .. int(now) .. ' ' .. int(ends or 0) .. ' ' .. int(size or -1) .. ' ' .. g
end
`

// putScript replaces the value. ARGV 4: the version it must have, 0 for no value, "" for any. ARGV 5: the bytes, inline
// at most; or 6 and 7: generation and size of what was staged.
var putScript = newScript(lua(prelude + `
local current = '0'
if size then current = last end
if ARGV[4] ~= '' and ARGV[4] ~= current then return answer('MISMATCH ' .. current) end
if not size and ARGV[2] == '' then return 'NEW' end
base = version
if ARGV[6] then
  local n = chunks(ARGV[7])
  local alive = 0
  for i = 0, n - 1 do alive = alive + redis.call('PERSIST', chunk(ARGV[6], i)) end
  if alive < n then
    for i = 0, n - 1 do redis.call('UNLINK', chunk(ARGV[6], i)) end
    return 'LOST'
  end
  local oldest = retire()
  based = ARGV[7]
  if ends then
    for i = 0, n - 1 do keep(chunk(ARGV[6], i)) end
  end
  return answer(commit(ARGV[6], ARGV[7]) .. ' ' .. oldest .. ' ' .. life)
end
local data = ARGV[5]
local inplace = size and chunks(size) <= 1
local g = gen
if not inplace then g = int(version) end
if #data > 0 then
  redis.call('SET', chunk(g, 0), data)
  keep(chunk(g, 0))
elseif inplace then
  redis.call('UNLINK', chunk(g, 0))
end
local oldest = '- 0'
if inplace then redis.call('UNLINK', marks(g)) else oldest = retire() end
based = #data
return answer(commit(g, #data) .. ' ' .. oldest .. ' ' .. life)
`))

// spliceScript overwrites a range, or appends. ARGV 4: offset, or "" for the end. 5: the bytes. 6: the most bytes that the
// value may have. 7: a version after which none of the chunks may have changed, or "". Or 8, 9 and 10: generation, length and offset of what
// was staged, cut at the chunks that it would touch at that offset; SHIFTED says that it would be cut elsewhere by now. After what commit
// adds is where the bytes landed, and previous.
var spliceScript = newScript(lua(prelude + `
local data, staged = ARGV[5], ARGV[8]
local len = #data
if staged then len = tonumber(ARGV[9]) end
local n = tonumber(size or 0)
local offset = n
if ARGV[4] ~= '' then offset = tonumber(ARGV[4]) end
local stop = offset + len
if stop > tonumber(ARGV[6]) then return answer('TOOLARGE ' .. int(stop)) end
if staged and (offset - tonumber(ARGV[10])) % CHUNK ~= 0 then return 'SHIFTED' end
if ARGV[7] ~= '' then
  for i = math.floor(offset / CHUNK), chunks(stop) - 1 do touched[i] = 0 end
  if not size or tonumber(previous()) > tonumber(ARGV[7]) then return answer('UNLIKE') end
end
if not size and ARGV[2] == '' then return 'NEW' end
local g = gen
if not size then g = int(version) end
if staged then
  local first, last = math.floor(offset / CHUNK), chunks(stop) - 1
  local shift = math.floor(tonumber(ARGV[10]) / CHUNK) - first
  for i = first, last do
    if redis.call('EXISTS', chunk(staged, i + shift)) == 0 then return 'LOST' end
  end
  for i = first, last do
    local from, piece = math.max(offset - i * CHUNK, 0), chunk(staged, i + shift)
    if from == 0 and stop >= math.min((i + 1) * CHUNK, n) then -- nothing of the old chunk stays
      redis.call('PERSIST', piece)
      redis.call('RENAME', piece, chunk(g, i))
      touched[i] = math.min(stop - i * CHUNK, CHUNK)
    else
      touched[i] = redis.call('SETRANGE', chunk(g, i), int(from), redis.call('GET', piece))
      redis.call('UNLINK', piece)
    end
  end
else
  write(g, offset, data)
end
if len > 0 then n = math.max(n, stop) end
local before = previous()
return answer(commit(g, n) .. ' ' .. int(offset) .. ' ' .. before .. ' ' .. life)
`))

// deleteScript leaves a tombstone, so that versions go on where they were.
var deleteScript = newScript(lua(prelude + `
if not size then return answer('NOVALUE') end
redis.call('PEXPIRE', meta, $TOMBSTONE)
local oldest = retire()
local bytes = size + (redis.call('HGET', meta, 'lb') or 0)
redis.call('UNLINK', meta .. ':l')
redis.call('HDEL', meta, 'n', 'g', 't', 'x', 'b', 'bn', 'e', 'lb', 'lm', 'lc')
redis.call('HSET', meta, 'v', int(version))
redis.call('PUBLISH', meta .. ':v', '0')
return answer('OK ' .. int(bytes) .. ' ' .. oldest .. ' ' .. life)
`))

// patchScript overwrites ranges. ARGV 4: the most bytes that the value may have. From 5 on: offset and bytes of each. What it answers
// is like spliceScript's.
var patchScript = newScript(lua(prelude + `
local n = tonumber(size or 0)
for i = 5, #ARGV, 2 do
  n = math.max(n, tonumber(ARGV[i]) + #ARGV[i + 1])
end
if n > tonumber(ARGV[4]) then return answer('TOOLARGE ' .. int(n)) end
if not size and ARGV[2] == '' then return 'NEW' end
local g = gen
if not size then g = int(version) end
for i = 5, #ARGV, 2 do write(g, tonumber(ARGV[i]), ARGV[i + 1]) end
local before = previous()
return answer(commit(g, n) .. ' 0 ' .. before .. ' ' .. life)
`))

// lookScript reads ranges of chunks that are to be written: ARGV has a chunk's number, and offsets in it of the first and last
// byte. It answers generation and base, which are empty without a value, and each range's mark and bytes.
var lookScript = newScript(lua(`
local h = redis.call('HMGET', KEYS[1], 'g', 'b')
local gen = h[1] or ''
local out = {gen, h[2] or ''}
for i = 1, #ARGV, 3 do
  out[#out + 1] = redis.call('HGET', KEYS[1] .. ':w:' .. gen, ARGV[i]) or ''
  out[#out + 1] = redis.call('GETRANGE', KEYS[1] .. ':c:' .. gen .. ':' .. ARGV[i], ARGV[i + 1], ARGV[i + 2])
end
return out
`))

// mergedScript is patchScript for ranges that were merged with what lookScript had read between them: it writes only if that is
// still so. ARGV 4: the most bytes that the value may have. 5 and 6: generation and base. 7: how many chunks were read; then
// number and mark of each; then offset and bytes of each range.
var mergedScript = newScript(lua(prelude + `
if (gen or '') ~= ARGV[5] or (base or '') ~= ARGV[6] then return 'CHANGED' end
local first = 8 + 2 * tonumber(ARGV[7])
for i = 8, first - 1, 2 do
  if (redis.call('HGET', marks(gen or ''), ARGV[i]) or '') ~= ARGV[i + 1] then return 'CHANGED' end
end
local n = tonumber(size or 0)
for i = first, #ARGV, 2 do n = math.max(n, tonumber(ARGV[i]) + #ARGV[i + 1]) end
if n > tonumber(ARGV[4]) then return answer('TOOLARGE ' .. int(n)) end
if not size and ARGV[2] == '' then return 'NEW' end
local g = gen
if not size then g = int(version) end
for i = first, #ARGV, 2 do write(g, tonumber(ARGV[i]), ARGV[i + 1]) end
local before = previous()
return answer(commit(g, n) .. ' 0 ' .. before .. ' ' .. life)
`))

// resizeScript cuts a value, or lets it grow by a hole. ARGV 4: the size. What is cut off moves to a generation that the
// caller removes: after what commit adds are its name, and the first byte and the end of what is in it.
var resizeScript = newScript(lua(prelude + `
local target, n = tonumber(ARGV[4]), tonumber(size or 0)
if not size and ARGV[2] == '' then return 'NEW' end
local g = gen
if not size then g = int(version) end
local dropped = '- 0 0'
if target < n then
  local stay, part = chunks(target), target % CHUNK
  local trash = 'd' .. int(version)
  for i = stay, chunks(n) - 1 do
    if redis.call('EXISTS', chunk(g, i)) == 1 then
      redis.call('RENAME', chunk(g, i), chunk(trash, i))
      redis.call('PEXPIRE', chunk(trash, i), $CHUNKTTL)
    end
    touched[i] = 0
  end
  if part > 0 and redis.call('STRLEN', chunk(g, stay - 1)) > part then
    local left = redis.call('GETRANGE', chunk(g, stay - 1), 0, int(part - 1))
    redis.call('UNLINK', chunk(g, stay - 1))
    redis.call('SET', chunk(g, stay - 1), left)
    touched[stay - 1] = part
  end
  dropped = trash .. ' ' .. int(stay * CHUNK) .. ' ' .. int(n)
end
return answer(commit(g, target) .. ' ' .. dropped .. ' ' .. life)
`))

// addScript adds to 8 bytes, little-endian. Lua's numbers are exact to 2^53, so it adds in halves. ARGV 4: offset, 5 and 6:
// low and high 32 bits of what is added, 7: the most bytes that the value may have. After what commit adds are the halves of the sum.
var addScript = newScript(lua(prelude + lengths + `
local offset, n = tonumber(ARGV[4]), tonumber(size or 0)
if offset + 8 > tonumber(ARGV[7]) then return answer('TOOLARGE ' .. int(offset + 8)) end
if not size and ARGV[2] == '' then return 'NEW' end
local g, old = gen, ''
if not size then g = int(version) end
local at, stop = offset, math.min(offset + 8, n)
while at < stop do
  local i, from = math.floor(at / CHUNK), at % CHUNK
  local want = math.min(stop - at, CHUNK - from)
  local piece = redis.call('GETRANGE', chunk(g, i), int(from), int(from + want - 1))
  if #piece < want and #piece < math.min(length(marks(g), based, i), from + want) - from then return 'CORRUPT ' .. int(i) end
  old = old .. piece .. string.rep(string.char(0), want - #piece)
  at = at + want
end
old = old .. string.rep(string.char(0), 8 - #old)
local function half(from)
  local a, b, c, d = string.byte(old, from, from + 3)
  return a + b * 256 + c * 65536 + d * 16777216
end
local function bytes(x)
  return string.char(x % 256, math.floor(x / 256) % 256, math.floor(x / 65536) % 256, math.floor(x / 16777216))
end
local low = half(1) + tonumber(ARGV[5])
local high = half(5) + tonumber(ARGV[6])
if low >= 4294967296 then low, high = low - 4294967296, high + 1 end
high = high % 4294967296
write(g, offset, bytes(low) .. bytes(high))
return answer(commit(g, math.max(n, offset + 8)) .. ' ' .. int(low) .. ' ' .. int(high) .. ' ' .. life)
`))

// expiryScript says when the value ends. ARGV 4: milliseconds from now, or "" for never.
var expiryScript = newScript(lua(prelude + `
if not size then return answer('NOVALUE') end
local all = {marks(gen), meta .. ':l'}
for i = 0, chunks(size) - 1 do all[#all + 1] = chunk(gen, i) end
if ARGV[4] == '' then
  ends = false
  redis.call('PERSIST', meta)
  redis.call('HDEL', meta, 'e')
  for _, name in ipairs(all) do redis.call('PERSIST', name) end
else
  ends = math.floor(now / 1000) + tonumber(ARGV[4])
  redis.call('PEXPIREAT', meta, int(ends)) -- first, since a full Redis allows it
  redis.call('HSET', meta, 'e', int(ends))
  for _, name in ipairs(all) do keep(name) end
end
return answer('OK ' .. last .. ' ' .. size .. ' ' .. redis.call('HGET', meta, 't') .. ' ' .. int(ends or 0) .. ' ' .. size .. ' ' .. gen .. ' ' .. life)
`))

// elementScript adds an element. ARGV 4: its bytes. 5: the most bytes that all may have.
var elementScript = newScript(lua(prelude + `
local had = redis.call('HMGET', meta, 'lb', 'lm')
local bytes = tonumber(had[1] or 0) + #ARGV[4] + $ELEMENT
if bytes > tonumber(ARGV[5]) then return answer('TOOLARGE ' .. int(bytes)) end
if not size and ARGV[2] == '' then return 'NEW' end
local place = redis.call('RPUSH', meta .. ':l', ARGV[4]) - 1
keep(meta .. ':l')
local new = size and '0' or '1'
if not size then commit(int(version), 0) end
redis.call('HSET', meta, 'lb', int(bytes), 'lm', int(math.max(tonumber(had[2] or 0), #ARGV[4])))
return answer('OK ' .. int(place) .. ' ' .. new .. ' ' .. life)
`))

// clearScript removes the elements.
var clearScript = newScript(lua(prelude + `
local bytes = redis.call('HGET', meta, 'lb') or '0'
if size and redis.call('UNLINK', meta .. ':l') == 1 then
  redis.call('HINCRBY', meta, 'lc', 1)
  redis.call('HDEL', meta, 'lb', 'lm')
end
return answer('OK ' .. bytes .. ' ' .. life)
`))

// elementsScript reads elements from ARGV 1 on, at most ARGV 2 of them (0 for all), and no more than about $PAGE bytes. It
// gives how often the list was cleared, and the elements.
var elementsScript = newScript(lua(`
local m = redis.call('HMGET', KEYS[1], 'n', 'x', 'lc', 'lm')
if not m[1] then return {} end
local n, wanted = math.max(1, math.floor($PAGE / (tonumber(m[4] or 0) + $ELEMENT))), tonumber(ARGV[2])
if wanted > 0 and wanted < n then n = wanted end
local last = string.format('%.0f', tonumber(ARGV[1]) + n - 1)
return {m[2] .. '.' .. (m[3] or '0'), redis.call('LRANGE', KEYS[1] .. ':l', ARGV[1], last)}
`))

// lengths has what a chunk's key holds. Bytes of a chunk past that were never written, and are zeros.
const lengths = `
local function length(marks, based, i)
  local mark = redis.call('HGET', marks, string.format('%.0f', i))
  if mark then return tonumber(string.match(mark, ' (%d+)$')) end
  return math.min(math.max(tonumber(based) - i * $CHUNK, 0), $CHUNK)
end
`

// readScript gives what headFields names, and a range if it is short: see db.first. CORRUPT says that bytes are missing.
var readScript = newScript(lua(lengths + `
local CHUNK = $CHUNK
local r = redis.call('HMGET', KEYS[1], 'v', 'n', 't', 'g', 'x', 'bn', 'e', 'lb')
if not r[2] then return {} end
local based = r[6] or 0
for i = 6, 8 do r[i] = r[i] or '0' end
local offset, len = tonumber(ARGV[1]), tonumber(ARGV[2])
local left = tonumber(r[2]) - offset
if len == 0 or len > left then len = left end
local first = offset % CHUNK
if len > $INLINE then len = 0 end
local i = (offset - first) / CHUNK
while len > 0 do
  local n = math.min(CHUNK - first, len)
  local piece = redis.call('GETRANGE', KEYS[1] .. ':c:' .. r[4] .. ':' .. string.format('%.0f', i), first, first + n - 1)
  if #piece < n and #piece < math.min(length(KEYS[1] .. ':w:' .. r[4], based, i), first + n) - first then return {'CORRUPT', i} end
  r[#r + 1] = piece
  i, first, len = i + 1, 0, len - n
end
return r
`))

// changesScript gives what headFields names, which chunks of bytes ARGV 2 to 3 have changed since version ARGV 1, and, if they
// are short, what those have there. From 4 on are versions that the first chunks are to be compared with instead. CORRUPT says
// that bytes are missing.
var changesScript = newScript(lua(lengths + `
local CHUNK = $CHUNK
local r = redis.call('HMGET', KEYS[1], 'v', 'n', 't', 'g', 'x', 'bn', 'e', 'lb', 'b')
if not r[2] then return {} end
for i = 6, 9 do r[i] = r[i] or '0' end
local since, changed, pieces = tonumber(ARGV[1]), {}, {}
local first, stop = tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), tonumber(r[2]))
local from, to = math.floor(first / CHUNK), math.ceil(stop / CHUNK) - 1
local prefix = KEYS[1] .. ':c:' .. r[4] .. ':'
if first >= stop or since == tonumber(r[1]) and not ARGV[4] then return {r, changed, pieces} end
local marks = redis.call('HGETALL', KEYS[1] .. ':w:' .. r[4])
local at = {}
for i = 1, #marks, 2 do at[tonumber(marks[i])] = tonumber(string.match(marks[i + 1], '^%d+')) end
local last, base = tonumber(r[1]), tonumber(r[9])
for i = from, to do
  local had = tonumber(ARGV[4 + i - from]) or since
  if base == 0 or had < base or had > last or #marks == 0 and had ~= last or at[i] and at[i] > had then changed[#changed + 1] = i end
end
local left = $INLINE
for _, i in ipairs(changed) do
  local a, b = math.max(first - i * CHUNK, 0), math.min(stop - i * CHUNK, CHUNK)
  left = left - (b - a)
  if left < 0 then return {r, changed, {}} end
  local piece = redis.call('GETRANGE', prefix .. string.format('%.0f', i), a, b - 1)
  if #piece < b - a and #piece < math.min(length(KEYS[1] .. ':w:' .. r[4], r[6], i), b) - a then return {'CORRUPT', i} end
  pieces[#pieces + 1] = piece
end
return {r, changed, pieces}
`))

// A lock is a hash: w token of the writer, u till when in ms, id of its request, h who it is, i till when a writer that waits
// keeps new readers out, t the last token; and a sorted set of the readers' tokens by when they end. KEYS: both.
//
// lockScript takes one. ARGV 1: id of the request, 2: 1 for shared, 3: lease in ms, 4: who, 5: till when to keep readers out, in ms from now.
var lockScript = newScript(lua(`
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local ms = math.floor(now / 1000)
local function int(x) return string.format('%.0f', tonumber(x)) end
local l = redis.call('HMGET', KEYS[1], 'w', 'u', 'id', 't', 'i', 'h')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', int(ms))
local wait, who = 0, l[6] or ''
if l[1] and tonumber(l[2]) > ms then
  if l[3] == ARGV[1] then return 'OK ' .. l[1] end
  wait = l[2] - ms
elseif ARGV[2] == '1' then
  if l[5] and tonumber(l[5]) > ms then wait, who = l[5] - ms, 'a writer that waits' end
else
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if first[1] then wait, who = first[2] - ms, int(redis.call('ZCARD', KEYS[2])) .. ' readers' end
end
if wait > 0 then
  if ARGV[2] ~= '1' and ARGV[5] ~= '0' then
    redis.call('HSET', KEYS[1], 'i', int(ms + ARGV[5]))
    redis.call('PEXPIRE', KEYS[1], $TOMBSTONE)
  end
  return 'HELD ' .. int(wait) .. ' ' .. who
end
local token = math.max(now, tonumber(l[4] or 0) + 1)
redis.call('HSET', KEYS[1], 't', int(token))
if ARGV[2] == '1' then
  redis.call('ZADD', KEYS[2], int(ms + ARGV[3]), int(token))
  redis.call('PEXPIRE', KEYS[2], $TOMBSTONE)
else
  redis.call('HSET', KEYS[1], 'w', int(token), 'u', int(ms + ARGV[3]), 'id', ARGV[1], 'h', ARGV[4])
  redis.call('HDEL', KEYS[1], 'i')
end
redis.call('PEXPIRE', KEYS[1], $TOMBSTONE)
return 'OK ' .. int(token)
`))

// renewScript keeps a lock for another lease. ARGV 1: token, 2: lease in ms, or 0 to give it back. LOST says that it was held no more.
var renewScript = newScript(lua(`
local clock = redis.call('TIME')
local ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function int(x) return string.format('%.0f', tonumber(x)) end
local held = redis.call('HMGET', KEYS[1], 'w', 'u')
local writer = held[1] == ARGV[1]
local till = writer and held[2] or redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0
local alive = tonumber(till) > ms
if ARGV[2] == '0' then
  if writer then redis.call('HDEL', KEYS[1], 'w', 'u', 'id', 'h') else redis.call('ZREM', KEYS[2], ARGV[1]) end
  redis.call('PUBLISH', KEYS[1], '')
elseif alive then
  if writer then redis.call('HSET', KEYS[1], 'u', int(ms + ARGV[2])) else redis.call('ZADD', KEYS[2], int(ms + ARGV[2]), ARGV[1]) end
  redis.call('PEXPIRE', KEYS[1], $TOMBSTONE)
  redis.call('PEXPIRE', KEYS[2], $TOMBSTONE)
end
if alive then return 'OK' end
return 'LOST'
`))

func lua(source string) string {
	ms := func(d interface{ Milliseconds() int64 }) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return strings.NewReplacer(
		"$CHUNKTTL", ms(chunkTTL), "$CHUNK", strconv.Itoa(chunkSize), "$INLINE", strconv.Itoa(inline), "$ANSWER", ms(answerTTL), "$READER", ms(readerTTL),
		"$TOMBSTONE", ms(tombstoneTTL), "$ELEMENT", strconv.Itoa(elementCost), "$PAGE", strconv.Itoa(chunkSize),
	).Replace(source)
}
