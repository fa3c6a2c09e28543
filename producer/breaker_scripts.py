"""The fleet's breakers, as Lua: what one call finds, no other can change before it is done.

Everything is in milliseconds of Redis's clock. One breaker is a hash (producer/breaker_words.py has the other keys):

    state, epoch, since     closed, open or half-open; which transition it came by, and when
    until                   while open: when a call may try
    opens                   how often in a row it was opened: each time it stays open for longer
    token, lease            while half-open: whose call tries, and until when that is waited for
    passed, by              tries that succeeded since it is half-open, and the token of the last that ever did
    failed                  failures in a row since it is closed
    asked_until             until when the other side asked for patience
    b0.., ok0.., bad0.., slow0..   the window: a bucket's number, and what came in it
    bucket, stirred         a bucket's length; when whoever has successes to tell was last asked for them
    forced, forced_until    an operator's word, open or closed, and until when; 0 is until it is taken back
    line                    when the last of the jobs that wait for it looks again by himself
    gap                     how far apart they come back once it is closed
    reason, who, job        of the last transition

A hash that nobody touches for a week goes away by itself, unless an operator's word stands in it.
"""

from __future__ import annotations

from producer.breaker_words import WORD

BUCKETS = 10
# While half-open, and where it is forced open for good, a job that waits looks again after so long.
PROBING_MS, FORCED_MS = 5_000, 600_000
# Jobs that wait look again one by one, the last of them after so long at the latest: more than that share times.
LONGEST_LINE_MS = 600_000
# However far apart they are, so many of them have times of their own.
FEWEST_TIMES = 10
LONGEST_MS = 86_400_000
# When comes whoever is behind the last of those that wait.
BEHIND = f"""
local function behind(first, last, gap, longest)
  local place = math.max(first, last + gap)
  if place > first + math.max(longest, math.min({FEWEST_TIMES} * gap, {LONGEST_MS})) then return first end
  return place
end
"""
# A job whose try failed comes back so much later than the next try may be, as a part of the time until then: others may
# go first, and where none are left it tries again.
LETS_PASS = 0.05

_COMMON = f"""
local BREAKER, MOVES, NAMES = unpack(KEYS)
local call = redis.call
local now, name, who, job = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
if not now then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local kept = call('HMGET', BREAKER, 'state', 'epoch', 'until', 'opens', 'token', 'lease', 'passed', 'failed', 'forced',
  'forced_until', 'gap')
local state, epoch, till = kept[1] or 'closed', tonumber(kept[2] or 0), tonumber(kept[3] or 0)
local opens, token, lease = tonumber(kept[4] or 0), kept[5] or '', tonumber(kept[6] or 0)
local passed, failed = tonumber(kept[7] or 0), tonumber(kept[8] or 0)
local forced, forced_until, gap = kept[9] or '', tonumber(kept[10] or 0), kept[11] or '100'
local moves = {{}}

local function keep()
  if forced ~= '' and forced_until == 0 then
    call('PERSIST', BREAKER)
  else
    call('PEXPIRE', BREAKER, math.max(604800000, forced_until - now + 86400000))
  end
end

-- Whoever lists breakers finds it for a week from now, and for as long as an operator's word stands in it.
local function list()
  local until_when = now
  if forced ~= '' then until_when = forced_until == 0 and '+inf' or math.max(now, forced_until) end
  call('ZADD', NAMES, until_when, name)
end

local function clear()
  failed = 0
  for i = 0, {BUCKETS - 1} do call('HDEL', BREAKER, 'b' .. i, 'ok' .. i, 'bad' .. i, 'slow' .. i) end
  call('HDEL', BREAKER, 'asked_until', 'stirred')
end

local function move(to, reason)
  local was = state
  -- The time, so that no epoch comes twice, not even where Redis has lost what it knew.
  state, epoch, token, lease, passed = to, math.max(epoch + 1, now), '', 0, 0
  call('HSET', BREAKER, 'state', state, 'epoch', epoch, 'since', now, 'until', till, 'opens', opens, 'token', '',
    'lease', 0, 'passed', 0, 'failed', failed, 'forced', forced, 'forced_until', forced_until,
    'reason', reason, 'who', who, 'job', job)
  -- Else they wait on in their places: who is refused meanwhile must not be sooner back than those.
  if state == 'closed' then call('HDEL', BREAKER, 'line') end
  local entry = {{'name', name, 'epoch', epoch, 'was', was, 'becomes', state, 'reason', reason, 'who', who, 'job', job,
    'until', state == 'open' and till or 0, 'gap', gap}}
  call('XADD', MOVES, 'MAXLEN', '~', 10000, '*', unpack(entry))
  list()
  call('ZREMRANGEBYSCORE', NAMES, '-inf', now - 604800000)
  call('PUBLISH', '{WORD}', name)
  keep()
  for i = 1, #entry do entry[i] = tostring(entry[i]) end
  entry[4] = string.format('%d', epoch)
  entry[16] = string.format('%d', state == 'open' and till or 0)
  moves[#moves + 1] = entry
end

local function close(reason)
  till, opens = 0, 0
  clear()
  move('closed', reason)
end

-- An operator's word that has had its time. What was forced open tries before it trusts.
if forced ~= '' and forced_until > 0 and now >= forced_until then
  local asking, for_job = who, job
  forced, forced_until, who, job = '', 0, call('HGET', BREAKER, 'who') or '', ''
  if state == 'open' then
    till = now
    move('open', 'the time of the operator is over')
  else
    close('the time of the operator is over')
  end
  who, job = asking, for_job
end

local function answer(decision, wait)
  return {{decision, state, epoch, math.floor(wait or 0), failed, passed, token, moves}}
end
"""

# ARGV: now name who job | token lease parks gap pace. Answers 1 where a call may go, 2 where it is the one that tries,
# 0 with a wait where it may not. Asked again with the same token, it prolongs that one's lease; asked without one, it
# says the same, and nobody's turn begins.
ADMIT = f"""{_COMMON}{BEHIND}
local mine, patience, parks = ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
if state == 'closed' then return answer(1) end

local function wait_for(base)
  if not parks then return answer(0, base) end
  gap = ARGV[8]
  if job ~= '' and state == 'open' and job == call('HGET', BREAKER, 'job') then
    return answer(0, base * {1 + LETS_PASS})  -- in no line: with holes in that, nobody might come in time
  end
  -- Behind the last of those that wait: who is refused again gets another place, and no later one for each time.
  local first, last = now + base, tonumber(call('HGET', BREAKER, 'line') or 0)
  local place = behind(first, last, tonumber(ARGV[9]), {LONGEST_LINE_MS})
  call('HSET', BREAKER, 'gap', gap, 'line', place)
  return answer(0, place - now)
end

if state == 'open' and forced == 'open' then
  return wait_for(forced_until > 0 and forced_until - now or {FORCED_MS})
end
if state == 'open' then
  if now < till then return wait_for(till - now) end
  if mine == '' then return answer(2) end
  move('half-open', 'the recovery time is over')
end
if token == '' or token == mine or now >= lease then  -- nobody tries, or who asks does; or who did is dead
  if mine == '' then return answer(2) end
  token, lease = mine, now + patience
  call('HSET', BREAKER, 'token', token, 'lease', lease)
  keep()
  return answer(2)
end
return wait_for(math.max(100, math.min(lease - now, {PROBING_MS})))
"""

# ARGV: now name who job | token epoch bad slow asked_ms jitter | fail_max min_calls failure_rate slow_rate bucket
# recovery longest threshold gap | age ok age ok ... A bucket's age is 0 for this one; a rule that is 0 is none.
RECORD = f"""{_COMMON}
local mine, begun, bad, slow = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local asked, jitter = tonumber(ARGV[9]), tonumber(ARGV[10])
local fail_max, min_calls, failure_rate = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local slow_rate, bucket, recovery = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local longest, threshold = tonumber(ARGV[17]), tonumber(ARGV[18])
gap = ARGV[19]
local ok = 0
for n = 20, #ARGV, 2 do ok = ok + tonumber(ARGV[n + 1]) end

local asked_until = asked > 0 and now + math.min(asked, {LONGEST_MS}) or 0
local function open(reason)
  -- 2^62 is past every longest time, and a larger exponent none that a double knows.
  local stays = math.min(longest, recovery * 2 ^ math.min(opens, 62)) * (1 + jitter / 5)
  opens = opens + 1
  till = math.floor(math.max(now + stays, asked_until, tonumber(call('HGET', BREAKER, 'asked_until') or 0)))
  call('HSET', BREAKER, 'gap', gap)
  move('open', reason)
end

if state == 'half-open' then
  local lost = mine ~= token
  if mine == '' then return answer(0) end
  if not lost then
    call('HSET', BREAKER, 'token', '', 'lease', 0)
    token, lease = '', 0
  end
  if begun < epoch then return answer(0) end
  -- One that lost its turn meanwhile has tried all the same. But where it did as its process stood still, and another
  -- tries by now, that it failed, or was slow, says something of that process.
  if lost and (ok == 0 or slow > 0) and token ~= '' and now < lease then return answer(0) end
  if bad > 0 then
    open('the probe failed')
  elseif slow > 0 then
    open('the probe was slow')
  elseif ok > 0 and mine ~= call('HGET', BREAKER, 'by') then  -- else it is told of once more
    passed = passed + 1
    call('HSET', BREAKER, 'passed', passed, 'by', mine)
    if passed >= threshold then
      call('HSET', BREAKER, 'gap', gap)
      close(threshold > 1 and passed .. ' probes succeeded' or 'the probe succeeded')
    end
  end
  return answer(0)
end
if state == 'open' then
  if asked_until > till and forced == '' then  -- only ever later
    till = asked_until
    call('HSET', BREAKER, 'until', till)
  end
  return answer(0)
end
if begun < epoch then return answer(0) end  -- begun before it last moved: it tells of another time

local current = math.floor(now / bucket)
local function add(age, field, count)
  local number = current - age
  local i = number % {BUCKETS}
  local there = tonumber(call('HGET', BREAKER, 'b' .. i) or -1)
  if age >= {BUCKETS} or there > number then return end
  if there < number then call('HSET', BREAKER, 'b' .. i, number, 'ok' .. i, 0, 'bad' .. i, 0, 'slow' .. i, 0) end
  call('HINCRBY', BREAKER, field .. i, count)
end
for n = 20, #ARGV, 2 do add(tonumber(ARGV[n]), 'ok', tonumber(ARGV[n + 1])) end
if bad > 0 then add(0, 'bad', bad) end
if slow > 0 then add(0, 'slow', slow) end
-- What this process has seen succeed, it saw before what failed.
failed = (ok > 0 and 0 or failed) + bad
call('HSET', BREAKER, 'failed', failed, 'bucket', bucket)
keep()
if bad + slow == 0 then return answer(0) end

if asked_until > tonumber(call('HGET', BREAKER, 'asked_until') or 0) then
  call('HSET', BREAKER, 'asked_until', asked_until)
end
if now - tonumber(call('HGET', BREAKER, 'stirred') or 0) >= bucket * {BUCKETS} / 2 then
  -- Successes are told only where somebody fails; until then nobody asks.
  call('HSET', BREAKER, 'stirred', now, 'gap', gap)
  list()
  call('PUBLISH', '{WORD}', name)
end
if forced == 'closed' then return answer(0) end
if fail_max > 0 and failed >= fail_max then
  open(failed .. ' failures in a row')
  return answer(0)
end
local total, all_bad, all_slow = 0, 0, 0
for i = 0, {BUCKETS - 1} do
  local seen = call('HMGET', BREAKER, 'b' .. i, 'ok' .. i, 'bad' .. i, 'slow' .. i)
  if seen[1] and current - tonumber(seen[1]) < {BUCKETS} then
    total = total + seen[2] + seen[3]
    all_bad, all_slow = all_bad + seen[3], all_slow + seen[4]
  end
end
if total >= min_calls and failure_rate > 0 and all_bad >= failure_rate * total then
  open(all_bad .. ' of ' .. total .. ' calls failed')
elseif total >= min_calls and slow_rate > 0 and all_slow >= slow_rate * total then
  open(all_slow .. ' of ' .. total .. ' calls were slow')
end
return answer(0)
"""

# ARGV: now name who '' | open, closed or '' for its own judgement, ms or 0 for good, reason. Three more keys: of the
# hold, of the list of holds, and of the line of those who wait for its end.
# Its own judgement begins with a try where it is open, whoever opened it, and whatever the other side asked for then.
# Whoever says that it may be called ends a hold, too.
FORCE = f"""{_COMMON}
local want, for_ms, reason = ARGV[5], tonumber(ARGV[6]), ARGV[7]
local ends = for_ms > 0 and now + for_ms or 0
local held = want == 'open' and 0 or call('DEL', KEYS[4])
if held == 1 then call('ZREM', KEYS[5], name) end
if want ~= 'open' then call('DEL', KEYS[6]) end
if want == 'open' then
  forced, forced_until, till = 'open', ends, ends
  move('open', reason)
elseif want == 'closed' then
  forced, forced_until = 'closed', ends
  close(reason)
elseif forced == 'closed' then
  forced, forced_until = '', 0
  close(reason)
elseif state == 'open' then
  forced, forced_until, till = '', 0, now
  call('HDEL', BREAKER, 'asked_until', 'line')
  move('open', reason)
elseif state == 'closed' and held == 1 then
  move('closed', reason)  -- for the record
end
return answer(0)
"""

# ARGV: now name who ''. A fourth key: of the hold. Answers with the moves that were due, the time, the hash, for how
# many milliseconds the hold goes on (less than 0 where there is none), and why.
LOOK = f"""{_COMMON}
return {{moves, now, call('HGETALL', BREAKER), call('PTTL', KEYS[4]), call('GET', KEYS[4]) or ''}}
"""
