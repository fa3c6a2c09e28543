"""The limits that the whole fleet keeps, as Lua: what one call finds, no other can change before it is done.

Everything is in microseconds of Redis's clock; one action has these keys, each named ``surefoot:limit:ACTION:`` and

    state    hash    spent, interval, came: of the rate, see `ADMIT`; typical: how long an attempt usually has its place
    booked   zset    jobs that came too early, by the time that each may come back at
    places   zset    ``JOB WORKER`` that runs, or ``JOB`` whose turn it is, by the time at which the place is lost
    line     zset    jobs that wait for a place, by the time they were accepted at
    until    zset    the same, by the time at which nobody needs to wake them any more
    rings    hash    the same, with what is needed to ring them
    looked   text    that somebody has just held the line to the ledger; see worker/forgotten.py
    lined    set     whom that has put into the line again, for as long as that goes on

A key that nobody touches for a week goes away by itself.
"""

from __future__ import annotations

from worker.fleet import Script

KEYS = ("state", "booked", "places", "line", "until", "rings")

# How long a place is kept for a job that has been rung for it.
RESERVED_SECONDS = 5
# Before anything is known, and between these bounds, an attempt is taken to have its place for so long. The next in
# line looks by himself after twice that: with the spread, within a minute.
TYPICAL_SECONDS, SHORTEST_SECONDS, LONGEST_SECONDS = 2.5, 0.5, 24
# Whoever is further down looks the later, with the spread within ten minutes: its turn cannot come sooner.
LONGEST_WAIT_SECONDS = 480
# A booking that is taken up so much too early is in time: what waits and what is due are not told by one clock.
EARLY_SECONDS = 0.02
# Those who have booked are taken to be gone where, for so long and three intervals, not one of them came.
MISSED_SECONDS = 30

_COMMON = f"""
local STATE, BOOKED, PLACES, LINE, UNTIL, RINGS = unpack(KEYS)
local call, second = redis.call, 1000000
local now, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
if not now then
  local time = call('TIME')
  now = time[1] * second + time[2]
end

local function keep(...)
  for _, key in ipairs({{...}}) do call('PEXPIRE', key, 604800000) end
end

local function leave_line(job)
  call('ZREM', LINE, job)
  call('ZREM', UNTIL, job)
  call('HDEL', RINGS, job)
end

-- Gives free places to the oldest that wait and returns their rings. Nobody can take a place that is given away, so the
-- order is kept; and one whose job does not come for it is free again after some seconds.
local function hand_over()
  if call('EXISTS', LINE) == 0 then return {{}} end
  call('ZREMRANGEBYSCORE', PLACES, '-inf', now)
  for _, job in ipairs(call('ZRANGEBYSCORE', UNTIL, '-inf', now, 'LIMIT', 0, 100)) do leave_line(job) end
  local free, rung = limit - call('ZCARD', PLACES), {{}}
  if free > 0 then
    for _, job in ipairs(call('ZRANGE', LINE, 0, math.min(free, 100) - 1)) do
      rung[#rung + 1] = call('HGET', RINGS, job)
      leave_line(job)
      call('ZADD', PLACES, now + {RESERVED_SECONDS} * second, job)
    end
    keep(PLACES)
  end
  return rung
end
"""

# The rate is GCRA twice. `spent` moves with every attempt that begins, a second's worth at once at most: no burst gets
# past it. Whoever comes too early books the time after the last booked one, and comes back then: one interval apart,
# nobody can be in another's way. So a booking is nearly always good; it is booked anew only where so many came late at
# once, as after an outage, that they would be a burst.
ADMIT = Script(f"""{_COMMON}
local job, member, interval, burst, lease = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local order = ARGV[8]
local spent = 0

-- Returns for how long it is too early, having booked; 0 where it is not.
local function too_early()
  local state = call('HMGET', STATE, 'spent', 'interval', 'came')
  spent = tonumber(state[1]) or 0
  -- Further ahead than it can get: the interval was another before, or Redis's clock went back.
  if spent > now + (burst + 1) * interval then spent = 0 end
  local free_at = spent - (burst - 1) * interval
  local slot = tonumber(call('ZSCORE', BOOKED, job))
  if slot and slot > now + {EARLY_SECONDS} * second then return slot - now end
  if slot then
    call('HSET', STATE, 'came', now)
    if free_at <= now + interval then return 0 end
    call('ZREM', BOOKED, job)
  else
    local first = call('ZRANGE', BOOKED, 0, 0, 'WITHSCORES')[2]
    local missed = now - math.max({MISSED_SECONDS} * second, interval * 3)
    local gone = first and tonumber(first) < missed and (tonumber(state[3]) or 0) < missed
    if gone or tonumber(state[2]) ~= interval then call('DEL', BOOKED) end
  end
  local last = call('ZRANGE', BOOKED, -1, -1, 'WITHSCORES')[2]
  slot = math.max(free_at, last and tonumber(last) + interval or 0)
  call('HSET', STATE, 'interval', interval)
  if slot <= now then return 0 end
  call('ZADD', BOOKED, slot, job)
  call('ZREMRANGEBYSCORE', BOOKED, '-inf', now - 86400 * second)
  keep(STATE, BOOKED)
  return slot - now
end

-- Returns after how long to look again, where there is no place: nobody further down the line need look as often.
local function no_place()
  call('ZREMRANGEBYSCORE', PLACES, '-inf', now)
  call('ZREM', PLACES, job, member)
  if call('ZCARD', PLACES) < limit then return nil end
  local before = call('ZCOUNT', LINE, '-inf', '(' .. order)
  local typical = tonumber(call('HGET', STATE, 'typical')) or {TYPICAL_SECONDS} * second
  typical = math.min(math.max(typical, {SHORTEST_SECONDS} * second), {LONGEST_SECONDS} * second)
  return math.min((1 + math.floor(before / limit)) * 2 * typical, {LONGEST_WAIT_SECONDS} * second)
end

local wait = interval > 0 and too_early() or 0
if wait > 0 then
  if limit > 0 then call('ZREM', PLACES, job) end
  return {{'rate', wait}}
end
local rung = {{}}
if limit > 0 then
  wait = no_place()
  if wait then return {{'concurrency', wait}} end
  leave_line(job)
  call('ZADD', PLACES, now + lease, member)
  keep(PLACES)
  rung = hand_over()
end
if interval > 0 then
  call('HSET', STATE, 'spent', math.max(spent, now) + interval)
  call('ZREM', BOOKED, job)
  keep(STATE)
end
return {{'admitted', unpack(rung)}}
""")

WAIT = Script(f"""{_COMMON}
local job, order, patience, ring = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
call('ZADD', LINE, order, job)
call('ZADD', UNTIL, now + patience, job)
call('HSET', RINGS, job, ring)
keep(LINE, UNTIL, RINGS)
return hand_over()
""")

RELEASE = Script(f"""{_COMMON}
local member, held = ARGV[3], tonumber(ARGV[4])
call('ZREM', PLACES, member)
local typical = tonumber(call('HGET', STATE, 'typical')) or held
call('HSET', STATE, 'typical', math.floor(typical + (held - typical) / 8))
keep(STATE)
return hand_over()
""")

# Takes out a job that its place is of no use to, and hands on what was kept for it if that may be of use to another. A
# booking that it has stays: somebody came.
GIVE_UP = Script(f"""{_COMMON}
local job, hands_on = ARGV[3], ARGV[4] == '1'
if call('ZSCORE', BOOKED, job) then
  call('HSET', STATE, 'came', now)
  keep(STATE)
end
leave_line(job)
call('ZREM', PLACES, job)
return hands_on and hand_over() or {{}}
""")

# Takes jobs that are over out of the line, and what was kept for them. Returns which of those that wait by the ledger
# stand in no line and have no turn, and the rings of those who have a place now.
MEND = Script(f"""{_COMMON}
local over = tonumber(ARGV[3])
for n = 4, 3 + over do
  leave_line(ARGV[n])
  call('ZREM', PLACES, ARGV[n])
end
local rung, lost = hand_over(), {{}}
for n = 4 + over, #ARGV do
  if not call('ZSCORE', LINE, ARGV[n]) and not call('ZSCORE', PLACES, ARGV[n]) then lost[#lost + 1] = ARGV[n] end
end
return {{lost, unpack(rung)}}
""")

# Adds what is not there: Redis may have lost it, and it runs all the same.
RENEW = Script(f"""{_COMMON}
for n = 4, #ARGV do call('ZADD', PLACES, now + tonumber(ARGV[3]), ARGV[n]) end
keep(PLACES)
return hand_over()
""")


def keys_of(action: str) -> list[str]:
    """Return the keys of an action, in the order in which every script here takes them."""
    return [_key_of(action, name) for name in KEYS]


def looked_key_of(action: str) -> str:
    """Return the key that says that somebody has just held an action's line to the ledger; no script takes it."""
    return _key_of(action, "looked")


def lined_key_of(action: str) -> str:
    """Return the key of those who were put into an action's line again; no script takes it, either."""
    return _key_of(action, "lined")


def _key_of(action: str, name: str) -> str:
    return f"surefoot:limit:{action}:{name}"
