"""What Redis does for us in one step each, as Lua scripts.

Keys: ``ft:names`` is the list of item ids, after a first element of 4 bytes drawn when it was made
(the epoch); ``ft:numbers`` the hash from item id to number, and ``ft:strangers`` how many of these
ids came as strangers; ``ft:models`` the set of models that have states, and ``ft:going`` that of
models whose states a sweep drops; ``ft:l:USER`` a log; ``ft:s:MODEL USER`` a state, MODEL being 8
bytes.

A log is its birth (8 bytes: the epoch and 4 of its own), then 12 bytes per event. A state is the
birth of its log, ``consumed`` and the record length (4 bytes each), then the records. A log of
another epoch holds numbers of a dictionary that is gone, and is taken as not there.

A script runs alone, so a state and its log are always read as they were at one moment. Nothing of
a script is undone when it fails half-way; each makes the change that can fail first.

A server that comes back from a snapshot has the epoch it had, but may have lost the last names, and
gives their numbers to other items. So what a client knows of the names is of one edition: the epoch
and the server's process (its ``run_id``).

Redis gives a string that was appended to twice the room it needs. A short one is therefore written
whole, which takes as much room as it has bytes; a long one is appended to, and a state cut to its
window when it holds twice as much.
"""

SHORT = 2_048  # bytes

NAMES, NUMBERS, MODELS = b"ft:names", b"ft:numbers", b"ft:models"
STRANGERS, GOING = b"ft:strangers", b"ft:going"
LOG, STATE = b"ft:l:", b"ft:s:"

# Which process the server is; none where its rules keep INFO from us.
_ASKED = """
local told = redis.pcall('INFO', 'server')
local process = type(told) == 'string' and string.match(told, 'run_id:(%x+)') or ''
"""

# KEYS: names, numbers, strangers, logs. ARGV: 4 bytes for a new epoch, 4 for new logs, milliseconds
# that logs live (0: for ever), number of items, how many strangers may have a number, for each item
# whether it is a stranger (0 or 1, in one string), items, then per log its events: 4 bytes place
# among the items (from 0) and 8 bytes time each.
APPEND = """
local names, numbers, strangers = KEYS[1], KEYS[2], KEYS[3]
local epoch = redis.call('LINDEX', names, 0)
if not epoch then
  epoch = ARGV[1]
  redis.call('RPUSH', names, epoch)
  redis.call('DEL', numbers, strangers)
end
local count, items = redis.call('LLEN', names) - 1, tonumber(ARGV[4])
local packed = {}
local room = tonumber(ARGV[5]) - tonumber(redis.call('GET', strangers) or 0)
for i = 1, items do
  local item = ARGV[6 + i]
  local number = redis.call('HGET', numbers, item)
  local strange = not number and string.sub(ARGV[6], i, i) == '1'
  if strange and room <= 0 then
    packed[i - 1] = NAMELESS
  elseif not number then
    if strange then
      room = room - 1
      redis.call('INCR', strangers)
    end
    number, count = count, count + 1
    redis.call('RPUSH', names, item)
    redis.call('HSET', numbers, item, number)
  end
  if number then
    packed[i - 1] = struct.pack('<I4', tonumber(number))
  end
end
for k = 4, #KEYS do
  local events, parts = ARGV[6 + items + k - 3], {}
  for at = 1, #events, 12 do
    parts[#parts + 1] = packed[struct.unpack('<I4', events, at)]
    parts[#parts + 1] = string.sub(events, at + 4, at + 11)
  end
  local body = table.concat(parts)
  if redis.call('GETRANGE', KEYS[k], 0, 3) == epoch then
    if redis.call('STRLEN', KEYS[k]) + #body <= SHORT then
      redis.call('SET', KEYS[k], redis.call('GET', KEYS[k]) .. body)
    else
      redis.call('APPEND', KEYS[k], body)
    end
  else
    redis.call('SET', KEYS[k], epoch .. ARGV[2] .. body)
  end
  if ARGV[3] ~= '0' then
    redis.call('PEXPIRE', KEYS[k], ARGV[3])
  else
    redis.call('PERSIST', KEYS[k])
  end
end
""".replace("SHORT", str(SHORT)).replace("NAMELESS", r"'\255\255\255\255'")

# KEYS: names, then per user log and state. ARGV: window, limit, bytes after which it is enough.
# Answers the edition, then per user birth, events in all, last events, consumed (-1: no state),
# record length, last records; of as many users as it took to be enough.
READ = """
ASKED
local window, limit, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local epoch = redis.call('LINDEX', KEYS[1], 0) or ''
local answer, n = {epoch .. process}, 1
for i = 2, #KEYS, 2 do
  local log, state = KEYS[i], KEYS[i + 1]
  local birth, total, events, consumed, width, records = '', 0, '', -1, 1, ''
  local found = redis.call('GETRANGE', log, 0, 7)
  if #found == 8 and string.sub(found, 1, 4) == epoch then
    birth = found
    total = (redis.call('STRLEN', log) - 8) / 12
    events = redis.call('GETRANGE', log, 8 + 12 * math.max(total - limit, 0), -1)
    local head = redis.call('GETRANGE', state, 0, 15)
    if #head == 16 and string.sub(head, 1, 8) == birth then
      consumed, width = struct.unpack('<I4I4', head, 9)
      local held = (redis.call('STRLEN', state) - 16) / width
      records = redis.call('GETRANGE', state, 16 + width * math.max(held - window, 0), -1)
    end
  end
  answer[n + 1], answer[n + 2], answer[n + 3] = birth, total, events
  answer[n + 4], answer[n + 5], answer[n + 6] = consumed, width, records
  n, room = n + 6, room - #events - #records
  if room < 0 then break end
end
return answer
""".replace("ASKED", _ASKED)

# KEYS: names, models, then per change log and state. ARGV: milliseconds that states live (0: for
# ever), then per change model, birth (empty: any), expected, consumed, record length, window,
# fresh (0 or 1), records. Answers 0 or 1 per change.
EXTEND = """
local epoch = redis.call('LINDEX', KEYS[1], 0)
local done = {}
for i = 3, #KEYS, 2 do
  local log, state, a = KEYS[i], KEYS[i + 1], 4 * (i - 3) + 1
  local model, birth = ARGV[a + 1], ARGV[a + 2]
  local expected, consumed = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
  local width, window = tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])
  local fresh, records = ARGV[a + 7] == '1', ARGV[a + 8]
  local made = 0
  local found = redis.call('GETRANGE', log, 0, 7)
  if #found == 8 and string.sub(found, 1, 4) == epoch and (birth == '' or birth == found)
      and consumed <= (redis.call('STRLEN', log) - 8) / 12 then
    local head = redis.call('GETRANGE', state, 0, 15)
    local kept = #head == 16 and string.sub(head, 1, 8) == found
    if fresh or (not kept and expected == 0) then
      redis.call('SADD', KEYS[2], model)
      redis.call('SET', state, found .. struct.pack('<I4I4', consumed, width) .. records)
      made = 1
    elseif kept and struct.pack('<I4I4', expected, width) == string.sub(head, 9) then
      head = found .. struct.pack('<I4I4', consumed, width)
      local size, most = redis.call('STRLEN', state) + #records, window * width
      if size <= SHORT then
        local kept = redis.call('GETRANGE', state, 16, -1) .. records
        redis.call('SET', state, head .. string.sub(kept, -most))
      elseif size - 16 <= 2 * most then
        redis.call('APPEND', state, records)
        redis.call('SETRANGE', state, 0, head)
      else
        local kept = redis.call('GETRANGE', state, -most, -1) .. records
        redis.call('SET', state, head .. string.sub(kept, -most))
      end
      made = 1
    end
    if made == 1 then
      if ARGV[1] ~= '0' then
        redis.call('PEXPIRE', state, ARGV[1])
      else
        redis.call('PERSIST', state)
      end
    end
  end
  done[#done + 1] = made
end
return done
""".replace("SHORT", str(SHORT))

# KEYS: models, going, log. ARGV: prefix of states, user. Answers how many keys went.
FORGET = """
local gone = redis.call('UNLINK', KEYS[3])
for _, model in ipairs(redis.call('SUNION', KEYS[1], KEYS[2])) do
  gone = gone + redis.call('UNLINK', ARGV[1] .. model .. ARGV[2])
end
return gone
"""

# KEYS: models, going, log. ARGV: prefix of states, user. Answers the bytes of the log and of all
# states.
SIZE = """
local log = redis.call('MEMORY', 'USAGE', KEYS[3], 'SAMPLES', 0) or 0
local states = 0
for _, model in ipairs(redis.call('SUNION', KEYS[1], KEYS[2])) do
  local state = ARGV[1] .. model .. ARGV[2]
  states = states + (redis.call('MEMORY', 'USAGE', state, 'SAMPLES', 0) or 0)
end
return {log, states}
"""

# KEYS: names, then per state log and state. ARGV: per state, whether its model is still wanted.
# Answers how many states went.
SWEEP = """
local epoch = redis.call('LINDEX', KEYS[1], 0)
local gone = 0
for i = 2, #KEYS, 2 do
  local birth = redis.call('GETRANGE', KEYS[i], 0, 7)
  local ours = #birth == 8 and string.sub(birth, 1, 4) == epoch
      and redis.call('GETRANGE', KEYS[i + 1], 0, 7) == birth
  if ARGV[i / 2] == '0' or not ours then
    gone = gone + redis.call('UNLINK', KEYS[i + 1])
  end
end
return gone
"""

# KEYS: names. ARGV: the edition that the caller knows, how many items of it, how many to send.
# Answers the edition, and the items after those, or from the first on if it is another one.
LEARN = """
ASKED
local edition = (redis.call('LINDEX', KEYS[1], 0) or '') .. process
local first = 1
if edition == ARGV[1] then first = 1 + tonumber(ARGV[2]) end
return {edition, redis.call('LRANGE', KEYS[1], first, first + tonumber(ARGV[3]) - 1)}
""".replace("ASKED", _ASKED)
