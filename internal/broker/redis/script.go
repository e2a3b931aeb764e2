package redis

import "github.com/redis/rueidis"

// The keys of a channel share a slot of a cluster:
//
//	<prefix>:v1:{c<channel>}:m     hash: e epoch, o offset, v version, w version epoch; while
//	                               there are keys k what is kept, r "1" by score, b keys ever,
//	                               n keys, x those that expire
//	<prefix>:v1:{c<channel>}:s     stream: entry <offset>-0, field d = the body
//	<prefix>:v1:{c<channel>}:k     hash: key → value, see parseEntry
//	<prefix>:v1:{c<channel>}:b     sorted set: places of the keys, all with score 0
//	<prefix>:v1:{c<channel>}:t     sorted set: key by the time at which it expires
//	<prefix>:v1:{c<channel>}:i:<k> string: the result for idempotency key k
//	<prefix>:v1:{c<channel>}:p     hash: client → info
//	<prefix>:v1:{c<channel>}:x     sorted set: client by the time at which it expires
//	<prefix>:v1:{c<channel>}:u     hash: user → number of clients
//
// Whatever was evicted, lost in a failover or removed by hand, a script finds the
// rest in a state that it can go on from: without meta there is a new epoch.

// meta begins a script: it finds the stream's epoch and offset, and makes a new
// stream if there is none, or if it is behind a position that is known to have
// existed (a failover has lost publications: their offsets must not be given to
// others in the same epoch). It returns them and, if there are keys, what is kept.
const meta = `
local meta, stream = KEYS[1], KEYS[2]
local function position(fresh, known_epoch, known_offset)
  local m = redis.call('hmget', meta, 'e', 'o', 'k')
  local epoch, offset = m[1], tonumber(m[2] or '0')
  if epoch and known_epoch == epoch and offset < tonumber(known_offset) then epoch = false end
  if not epoch then
    epoch, offset = fresh, 0
    redis.call('hset', meta, 'e', epoch, 'o', '0')
    redis.call('del', stream)
  end
  return epoch, offset, m[3]
end
`

// publishScript stores and publishes.
//
// KEYS meta, stream, idempotency.
// ARGV 1 body · 2 topic, "" = do not publish · 3 size, 0 = no history · 4 history TTL ms ·
// 5 meta TTL ms · 6 fresh epoch · 7 idempotency TTL ms, 0 = no key · 8 version as 20 digits,
// "" = none · 9 version epoch · 10 delta "0"/"1" · 11, 12 known epoch and offset.
//
// Returns suppressed 0/1, epoch, offset, previous offset, previous body.
//
// A full server refuses a script at its first write that takes memory, unless the
// script has written before: so that comes first.
var publishScript = rueidis.NewLuaScript(meta + `
local body, topic, size = ARGV[1], ARGV[2], tonumber(ARGV[3])
if ARGV[7] ~= '0' then
  local first = redis.call('get', KEYS[3])
  if first then
    local offset, epoch = string.match(first, '^(%d+):(.*)$')
    return {1, epoch or '', offset or '0'}
  end
end
local epoch, offset, keyed = '', 0, false
if size > 0 or ARGV[8] ~= '' then
  epoch, offset, keyed = position(ARGV[6], ARGV[11], ARGV[12])
  if ARGV[8] ~= '' then
    local v = redis.call('hmget', meta, 'v', 'w')
    if v[1] and (ARGV[9] == '' or ARGV[9] == v[2]) and ARGV[8] <= v[1] then
      if not keyed then redis.call('pexpire', meta, ARGV[5]) end
      if size > 0 then return {1, epoch, string.format('%.0f', offset)} end
      return {1, '', '0'}
    end
    redis.call('hset', meta, 'v', ARGV[8], 'w', ARGV[9])
  end
end
local at, prevOffset, prev = '0', '0', ''
local message = '1p' .. body
if size > 0 then
  if ARGV[10] == '1' then
    local last = redis.call('xrevrange', stream, '+', '-', 'COUNT', '1')[1]
    if last then prevOffset, prev = string.match(last[1], '^%d+'), last[2][2] end
  end
  offset = redis.call('hincrby', meta, 'o', 1)
  at = string.format('%.0f', offset)
  redis.call('xadd', stream, 'MAXLEN', size, at .. '-0', 'd', body)
  redis.call('pexpire', stream, ARGV[4])
  message = '1h' .. at .. ':' .. epoch .. ':' .. ARGV[10] .. ':' .. #prev .. ':' .. prevOffset .. ':' .. prev .. body
else
  epoch = ''
end
if (size > 0 or ARGV[8] ~= '') and not keyed then redis.call('pexpire', meta, ARGV[5]) end
if ARGV[7] ~= '0' then redis.call('set', KEYS[3], at .. ':' .. epoch, 'PX', ARGV[7]) end
if topic ~= '' then redis.call('publish', topic, message) end
return {0, epoch, at, prevOffset, prev}
`)

// passScript publishes on the server that owns the channel in a cluster, so that
// the channel keeps its order. KEYS meta. ARGV topic, message.
var passScript = rueidis.NewLuaScript(`return redis.call('publish', ARGV[1], ARGV[2])`)

// historyScript reads a stream and its position.
//
// KEYS meta, stream, keys, order, expiry. ARGV 1 fresh epoch · 2 meta TTL ms · 3 "1": shorten a longer
// TTL, too · 4 from · 5 to · 6 limit, 0 = position only, -1 = all · 7 "1" = newest
// first · 8 the epoch asked for, "" = any · 9, 10 known epoch and offset.
//
// Returns epoch, offset, entries, ms until a key expires or -1; no entries if the
// epoch is another. The position of a channel with keys lives as long as they do.
var historyScript = rueidis.NewLuaScript(meta + `
local epoch, offset, keyed = position(ARGV[1], ARGV[9], ARGV[10])
local wait = -1
if keyed then
  local first = redis.call('zrange', KEYS[5], 0, 0, 'WITHSCORES')[2]
  local t = redis.call('time')
  if first then wait = math.max(0, first - t[1] * 1000 - math.floor(t[2] / 1000)) end
elseif ARGV[3] == '1' or redis.call('pttl', meta) < tonumber(ARGV[2]) then
  redis.call('pexpire', meta, ARGV[2])
end
local at, entries = string.format('%.0f', offset), {}
if ARGV[6] ~= '0' and (ARGV[8] == '' or ARGV[8] == epoch) then
  local command = 'xrange'
  if ARGV[7] == '1' then command = 'xrevrange' end
  if ARGV[6] == '-1' then
    entries = redis.call(command, stream, ARGV[4], ARGV[5])
  else
    entries = redis.call(command, stream, ARGV[4], ARGV[5], 'COUNT', ARGV[6])
  end
end
return {epoch, at, entries, wait}
`)

// occupancy begins the scripts of presence. sweep removes who has expired, at most
// 1000 at once so that nobody else waits long, and reports whether there are
// more. Time is the store's, so clocks of nodes may differ.
const occupancy = `
local clients, expiry, users = KEYS[1], KEYS[2], KEYS[3]
local t = redis.call('time')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function userOf(info)
  local n, rest = string.match(info, '^(%d+):(.*)$')
  return string.sub(rest, 1, tonumber(n))
end
local function leave(user)
  if redis.call('hincrby', users, user, -1) <= 0 then redis.call('hdel', users, user) end
end
local function drop(client)
  local info = redis.call('hget', clients, client)
  if info then
    redis.call('hdel', clients, client)
    leave(userOf(info))
  end
  redis.call('zrem', expiry, client)
end
local function sweep()
  local gone = redis.call('zrangebyscore', expiry, '-inf', now, 'LIMIT', 0, 1000)
  for _, client in ipairs(gone) do drop(client) end
  return #gone == 1000 and 1 or 0
end
`

// addScript: ARGV 1 client · 2 user · 3 info, which begins with the user · 4 TTL ms.
var addScript = rueidis.NewLuaScript(occupancy + `
local before = redis.call('hget', clients, ARGV[1])
if before and userOf(before) ~= ARGV[2] then
  leave(userOf(before))
  before = false
end
if not before then redis.call('hincrby', users, ARGV[2], 1) end
redis.call('hset', clients, ARGV[1], ARGV[3])
redis.call('zadd', expiry, string.format('%.0f', now + ARGV[4]), ARGV[1])
for i = 1, 3 do redis.call('pexpire', KEYS[i], ARGV[4]) end
return sweep()
`)

// removeScript: ARGV 1 client.
var removeScript = rueidis.NewLuaScript(occupancy + `
drop(ARGV[1])
return sweep()
`)

// statsScript returns whether there are more to sweep, clients, users.
var statsScript = rueidis.NewLuaScript(occupancy + `
local more = sweep()
return {more, redis.call('zcard', expiry), redis.call('hlen', users)}
`)
