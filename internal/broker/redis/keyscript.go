package redis

import (
	"github.com/redis/rueidis"

	"github.com/volute-io/volute/internal/broker/feed"
)

// A place is 16 hexadecimal digits, which sort as what they stand for (how many
// keys there were before, or the score), and the key.

// keyed begins the scripts of map channels. Whatever they do, expired keys go
// first, some at a time, and settle says at the end how long the rest lives: until
// the last key has expired and the meta TTL after that, all of it, so that there is
// no state without a position and no position that has forgotten removals. Where a
// part of the state was evicted or is not ours, the rest is forgotten, and
// subscribers start over.
//
// KEYS meta, stream, keys, order, expiry. ARGV 1 topic, "" = return the messages ·
// 2 what is kept, "stream size:stream TTL ms:meta TTL ms", "" = as before · 3 fresh
// epoch · 4, 5 known epoch and offset · 6 the first bytes of a removal.
const keyed = meta + `
local keys, order, expiry = KEYS[3], KEYS[4], KEYS[5]
local t = redis.call('time')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local keep = ARGV[2]
if keep == '' then keep = redis.call('hget', meta, 'k') or '0:1:600000' end
local size, streamTTL, metaTTL = string.match(keep, '^(%d+):(%d+):(%d+)$')
size = tonumber(size)
local epoch, offset = '', 0
if size > 0 then epoch, offset = position(ARGV[3], ARGV[4], ARGV[5]) end
local changed, messages = false, {}
local function tell(message)
  if ARGV[1] ~= '' then redis.call('publish', ARGV[1], message) else table.insert(messages, message) end
end

local function forget()
  for _, name in ipairs({stream, keys, order, expiry}) do redis.call('unlink', name) end
  redis.call('hdel', meta, 'r', 'b', 'n', 'x')
  if size > 0 then
    epoch, offset = ARGV[3], 0
    redis.call('hset', meta, 'e', epoch, 'o', '0')
  end
  tell('1r')
end
local had = redis.call('hmget', meta, 'n', 'x')
local all, mortal = tonumber(had[1] or 0), tonumber(had[2] or 0)
if all ~= redis.call('hlen', keys) or all ~= redis.call('zcard', order) or mortal ~= redis.call('zcard', expiry) then forget() end

local function text(n) return string.format('%.0f', n) end
local function varint(n)
  local s = ''
  while n >= 128 do
    s = s .. string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return s .. string.char(n)
end

local function note(body, delta, prevOffset, prev)
  local message = '1p' .. body
  changed = true
  if size > 0 then
    offset = redis.call('hincrby', meta, 'o', 1)
    redis.call('xadd', stream, 'MAXLEN', size, text(offset) .. '-0', 'd', body)
    message = '1h' .. text(offset) .. ':' .. epoch .. ':' .. delta .. ':' .. #prev .. ':' .. prevOffset .. ':' .. prev .. body
  end
  tell(message)
end

local function entry(key)
  local v = redis.call('hget', keys, key)
  if not v then return nil end
  local e = {}
  local n, m, rest
  e.offset, e.aside, e.version, n, m, e.rank, rest = string.match(v, '^(%d+):(%d):(%d*):(%d+):(%d+):(%x+):(.*)$')
  if not e.offset or #e.rank ~= 16 then
    forget()
    return nil
  end
  e.epoch, e.tags, e.body = string.sub(rest, 1, n), string.sub(rest, n + 1, n + m), string.sub(rest, n + m + 1)
  return e
end

local function remove(key, e, head, tail, tagged)
  if e.tags ~= '' and not tagged then
    head = string.sub(head, 1, 1) .. string.char(string.byte(head, 2) + ` + tagsFlag + `) .. string.sub(head, 3) .. e.tags
  end
  redis.call('hdel', keys, key)
  redis.call('zrem', order, e.rank .. key)
  redis.call('zrem', expiry, key)
  note(head .. tail, '0', '0', '')
end

local function expire(key)
  local e = entry(key)
  if e then
    remove(key, e, ARGV[6] .. varint(2 * now), varint(#key) .. key .. '\0\0', false)
  else
    redis.call('zrem', expiry, key)
  end
end

local function sweep()
  local due = redis.call('zrangebyscore', expiry, '-inf', now, 'LIMIT', 0, 100)
  for _, key in ipairs(due) do expire(key) end
  return #due == 100 and 1 or 0
end

local function wait()
  local first = redis.call('zrange', expiry, 0, 0, 'WITHSCORES')[2]
  return first and math.max(0, first - now) or -1
end

local function settle()
  if changed and size > 0 then redis.call('pexpire', stream, streamTTL) end
  local count = redis.call('hlen', keys)
  if count == 0 then
    redis.call('hdel', meta, 'k', 'r', 'b', 'n', 'x')
    redis.call('pexpire', meta, metaTTL)
    return count
  end
  local mortal = redis.call('zcard', expiry)
  redis.call('hset', meta, 'k', keep, 'n', count, 'x', mortal)
  local last = redis.call('zrange', expiry, -1, -1, 'WITHSCORES')[2]
  for _, name in ipairs({meta, keys, order, expiry}) do
    if count > mortal then redis.call('persist', name) else redis.call('pexpireat', name, text(last + metaTTL)) end
  end
  return count
end
`

// tagsFlag is feed.TagsFlag in Lua.
const tagsFlag = string('0' + rune(feed.TagsFlag))

// changeScript sets or removes a key.
//
// KEYS … 6 idempotency. ARGV … 7 "1" = remove · 8 key · 9 body that is told, or
// the first part of a removal's · 10 body that is kept if it is another, or the
// second part · 11 tags as in a body, or "1" = the removal has its own · 12 key
// mode · 13 "1" = prolong · 14 key TTL ms, 0 = none · 15 idempotency TTL ms, 0 = no
// key · 16 version as 20 digits, "" = none · 17 version epoch · 18 delta "0"/"1" ·
// 19 "1" = by score · 20 the score's digits of a place.
//
// Returns why nothing was changed, epoch, offset, messages.
var changeScript = rueidis.NewLuaScript(keyed + `
local key = ARGV[8]
local function answer(why)
  settle()
  return {why, epoch, text(offset), messages}
end
if ARGV[15] ~= '0' then
  local first = redis.call('get', KEYS[6])
  if first then
    local at, of = string.match(first, '^(%d+):(.*)$')
    if size > 0 then epoch, offset = of or '', tonumber(at or '0') end
    return answer('idempotency')
  end
end
local function touch()
  if ARGV[14] == '0' then
    redis.call('zrem', expiry, key)
  else
    redis.call('zadd', expiry, text(now + ARGV[14]), key)
  end
end
sweep()
if tonumber(redis.call('zscore', expiry, key) or now + 1) <= now then expire(key) end
local before = entry(key)
if not before then
  if ARGV[7] == '1' or ARGV[12] == 'if_exists' then return answer('key_not_found') end
elseif ARGV[12] == 'if_new' then
  if ARGV[13] == '1' then touch() end
  return answer('key_exists')
elseif ARGV[16] ~= '' and ARGV[16] <= before.version and (ARGV[17] == '' or ARGV[17] == before.epoch) then
  return answer('version')
end
if ARGV[7] == '1' then
  remove(key, before, ARGV[9], ARGV[10], ARGV[11] == '1')
else
  local scored = redis.call('hget', meta, 'r')
  if not scored or redis.call('exists', order) == 0 then
    scored = ARGV[19]
    redis.call('hset', meta, 'r', scored)
  end
  local rank = before and before.rank
  if scored == '1' then rank = ARGV[20] elseif not rank then rank = string.format('%016x', redis.call('hincrby', meta, 'b', 1)) end
  if before and before.rank ~= rank then redis.call('zrem', order, before.rank .. key) end
  redis.call('zadd', order, 0, rank .. key)
  touch()
  local body, aside, prevOffset, prev = ARGV[10], '1', '0', ''
  if body == '' then
    body, aside = ARGV[9], '0'
    if ARGV[18] == '1' and before and before.aside == '0' then prevOffset, prev = before.offset, before.body end
  end
  note(ARGV[9], ARGV[18], prevOffset, prev)
  local version, of = ARGV[16], ARGV[17]
  if version == '' and before then version, of = before.version, before.epoch end
  redis.call('hset', keys, key, text(offset) .. ':' .. aside .. ':' .. version .. ':' .. #of .. ':' .. #ARGV[11] .. ':' .. rank .. ':' .. of .. ARGV[11] .. body)
end
if ARGV[15] ~= '0' then redis.call('set', KEYS[6], text(offset) .. ':' .. epoch, 'PX', ARGV[15]) end
return answer('')
`)

// stateScript reads keys. ARGV … 7 key, "" = a page · 8 place after which the page
// begins, "" = the first · 9 limit · 10 "1" = lowest score first.
//
// Returns whether more keys have expired (then nothing else counts), epoch, offset,
// values, the last one's place if there are more, ms until a key expires or -1,
// messages.
var stateScript = rueidis.NewLuaScript(keyed + `
local more = sweep()
local values, last = {}, ''
if more == 1 then
elseif ARGV[7] ~= '' then
  local v = redis.call('hget', keys, ARGV[7])
  if v then values[1] = v end
elseif ARGV[9] ~= '0' then
  local limit, places = tonumber(ARGV[9]), nil
  if redis.call('hget', meta, 'r') == '1' and ARGV[10] ~= '1' then
    places = redis.call('zrevrangebylex', order, ARGV[8] == '' and '+' or '(' .. ARGV[8], '-', 'LIMIT', 0, limit + 1)
  else
    places = redis.call('zrangebylex', order, ARGV[8] == '' and '-' or '(' .. ARGV[8], '+', 'LIMIT', 0, limit + 1)
  end
  if #places > limit then
    places[#places] = nil
    last = places[#places]
  end
  for _, place in ipairs(places) do
    local v = redis.call('hget', keys, string.sub(place, 17))
    if v then table.insert(values, v) end
  end
end
local wait = wait()
settle()
return {more, epoch, text(offset), values, last, wait, messages}
`)

// sweepScript removes expired keys. Returns whether there are more, ms until the
// next one expires or -1, how many keys there are, messages.
var sweepScript = rueidis.NewLuaScript(keyed + `
if redis.call('hlen', keys) == 0 then
  if redis.call('hexists', meta, 'k') == 1 then settle() end
  return {0, -1, 0, messages}
end
local more = sweep()
return {more, wait(), settle(), messages}
`)

// clearScript forgets keys and stream. ARGV … 7 meta TTL ms where none is known.
var clearScript = rueidis.NewLuaScript(keyed + `
for _, name in ipairs({stream, keys, order, expiry}) do redis.call('unlink', name) end
if redis.call('exists', meta) == 1 then
  redis.call('pexpire', meta, redis.call('hexists', meta, 'k') == 1 and metaTTL or ARGV[7])
  redis.call('hdel', meta, 'k', 'r', 'b', 'n', 'x', 'v', 'w')
  redis.call('hset', meta, 'e', ARGV[3], 'o', '0')
end
if ARGV[1] ~= '' then redis.call('publish', ARGV[1], '1r') end
return 0
`)
