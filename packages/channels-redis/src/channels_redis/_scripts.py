"""The two scripts of the stream backend; each runs atomically, on keys of one hash slot.

The record of a channel is a hash that outlives the stream: ``e`` epoch, ``s`` newest offset, ``i`` incarnation of the
server when it was written last, ``f`` first offset of the epoch, ``x`` when its time to live was renewed, and for each
lane, in a field that begins with a colon, the highest number and when it came.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ("BORDER", "OUT_OF_ORDER", "PUBLISH", "READ", "Script")


class Script:
    """A script and the name that the server gives it."""

    def __init__(self, text: str) -> None:
        self.text: Final = text.encode()
        self.sha: Final = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


OUT_OF_ORDER: Final = 0
"""`PUBLISH` stored nothing, because the publication before this one is not there."""

BORDER: Final = 2
"""`PUBLISH` stored the events, in a new epoch because the incarnation differed."""

PUBLISH: Final = Script("""\
-- KEYS: record, stream
-- ARGV: 1 incarnation, 2 PUBLISH or SPUBLISH, 3 = or ~, 4 history, 5 max_age in ms or 0, 6 stream's ttl in ms,
--       7 record's ttl in ms, 8 lane's ttl in ms, 9 live channel, 10 fresh epoch, 11 lane's field or nothing,
--       12 previous number, then number and payload of each event
local record, stream, lane = KEYS[1], KEYS[2], ARGV[11]
local known = redis.call('HMGET', record, 'e', 's', 'i', 'x', lane)
local first = 13
if lane ~= '' then
  local seen = known[5] and tonumber(string.match(known[5], '^%d+')) or 0
  if seen < tonumber(ARGV[12]) then return 0 end
  while ARGV[first] and tonumber(ARGV[first]) <= seen do first = first + 2 end
  if not ARGV[first] then return 1 end
end
local epoch, top, result = known[1], tonumber(known[2] or 0), 1
local fresh = not epoch or known[3] ~= ARGV[1]
if fresh then
  if epoch then result = 2 else redis.call('DEL', stream) end
  epoch = ARGV[10]
end
local begin = top + 1
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local clock = string.format('%.0f', now)
local head, tail = '1:' .. epoch .. ':', ':' .. clock .. '\\n'
for n = first, #ARGV, 2 do
  top = top + 1
  local offset = string.format('%.0f', top)
  local envelope = head .. offset .. tail .. ARGV[n + 1]
  local added = redis.pcall('XADD', stream, 'MAXLEN', ARGV[3], ARGV[4], offset .. '-1', 'e', envelope)
  if type(added) == 'table' and added.err then
    -- Somebody else's entries, or a half restored stream, must not stop the channel for good.
    if not string.find(added.err, 'smaller than', 1, true) then return added end
    redis.call('DEL', stream)
    redis.call('XADD', stream, offset .. '-1', 'e', envelope)
  end
  redis.call(ARGV[2], ARGV[9], envelope)
end
local changes = {'s', string.format('%.0f', top)}
if lane ~= '' then
  changes[3], changes[4] = lane, ARGV[#ARGV - 1] .. '@' .. clock
end
if fresh then
  for _, word in ipairs({'e', epoch, 'i', ARGV[1], 'f', string.format('%.0f', begin)}) do
    changes[#changes + 1] = word
  end
end
-- Time to live is renewed now and then, with that much to spare, not with every event.
local spare = math.floor(math.min(ARGV[6], ARGV[8]) / 8)
local renew = fresh or not known[4] or math.abs(now - known[4]) > spare
if renew then
  changes[#changes + 1] = 'x'
  changes[#changes + 1] = clock
end
redis.call('HSET', record, unpack(changes))
if renew then
  redis.call('PEXPIRE', record, string.format('%.0f', math.max(ARGV[7], ARGV[8]) + spare))
  redis.call('PEXPIRE', stream, string.format('%.0f', ARGV[6] + spare))
  local fields = redis.call('HGETALL', record)
  for n = 1, #fields, 2 do
    local used = string.sub(fields[n], 1, 1) == ':' and string.match(fields[n + 1], '@(%d+)$')
    if used and now - used > ARGV[8] + spare then redis.call('HDEL', record, fields[n]) end
  end
end
if ARGV[5] ~= '0' then
  local oldest = now - ARGV[5]
  repeat
    local page, expired = redis.call('XRANGE', stream, '-', '+', 'COUNT', 16), 0
    for n, entry in ipairs(page) do
      if tonumber(string.match(entry[2][2], '^1:[^:\\n]*:%d+:(%d+)\\n') or 0) >= oldest then break end
      expired = n
    end
    if expired > 0 then
      redis.call('XTRIM', stream, 'MINID', (string.gsub(page[expired][1], '%-1$', '-2')))
    end
  until expired < 16
end
return result
""")

READ: Final = Script("""\
-- KEYS: record, stream
-- ARGV: limit or -1, history, max_age in ms or 0, after's epoch and offset (both absent: the newest)
-- Gives epoch, newest offset, entries; nothing for a channel without a record. Entries of an epoch border come
-- unlimited: the caller knows which of them follow `after`.
local record, stream = KEYS[1], KEYS[2]
local known = redis.call('HMGET', record, 'e', 's', 'f')
if not known[1] then return {} end
local epoch, top, begin = known[1], tonumber(known[2]), tonumber(known[3])
local limit = tonumber(ARGV[1])
if limit == 0 then return {epoch, known[2], {}} end
local low, count = math.max(1, top - tonumber(ARGV[2]) + 1), nil
if not ARGV[4] then
  if limit > 0 then low = math.max(low, top - limit + 1) end
elseif ARGV[4] == epoch then
  low, count = math.max(low, tonumber(ARGV[5]) + 1), limit
elseif ARGV[4] == '' or low >= begin then
  count = limit
end
if low > top then return {epoch, known[2], {}} end
local from = string.format('%.0f', low)
if ARGV[3] ~= '0' then
  local time = redis.call('TIME')
  local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[3]
  repeat
    local page, expired = redis.call('XRANGE', stream, from, '+', 'COUNT', 16), 0
    for n, entry in ipairs(page) do
      if tonumber(string.match(entry[2][2], '^1:[^:\\n]*:%d+:(%d+)\\n') or 0) >= oldest then break end
      expired = n
    end
    if expired > 0 then from = string.gsub(page[expired][1], '%-1$', '-2') end
  until expired < 16
end
if count and count > 0 then
  return {epoch, known[2], redis.call('XRANGE', stream, from, '+', 'COUNT', count)}
end
return {epoch, known[2], redis.call('XRANGE', stream, from, '+')}
""")
