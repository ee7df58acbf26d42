-- The most that Weft forwards of a capture with no more than a given share lost, by bisection: PDR, or NDR with WEFT_LOSS=0.
--
-- weft-bench gen --microseconds --config scripts/pktgen/one-port.toml ... --out steady.pcap
-- pktgen -l 0,1 ... -- -P -m "1.0" -s 0:steady.pcap -f scripts/pktgen/throughput.lua                   (one port)
-- WEFT_RX=1 pktgen -l 0,1 ... -- -P -m "1.[0-1]" -s 0:steady.pcap -f scripts/pktgen/throughput.lua     (two ports)
--
-- Loss is what was sent and did not come back, whatever the reason, so the capture must hold nothing that Weft drops by
-- design (unknown tokens, malformed packets). pktgen repeats it for ever, preloaded, without its time stamps.

local function setting(name, default) return os.getenv(name) or default end

local tx = setting("WEFT_TX", "0")                    -- the port that sends
local rx = setting("WEFT_RX", tx)                     -- the port where packets come back
local tolerated = tonumber(setting("WEFT_LOSS", "0.5"))       -- percent; 0.5 is PDR, 0 is NDR
local seconds = tonumber(setting("WEFT_SECONDS", "1"))        -- a trial
local width = tonumber(setting("WEFT_WIDTH", "1"))            -- bisection ends where the bounds are this near, percent of link
local passes = tonumber(setting("WEFT_PASSES", "3"))          -- trials at one rate that must all keep to the rule
local highest = tonumber(setting("WEFT_HIGHEST", "100"))      -- percent of the link to begin with
local results = setting("WEFT_RESULTS", "weft-throughput.csv")

pktgen.screen("off")
pktgen.stop("all")
pktgen.pcap(tx, "on")                                 -- the file given with -s
pktgen.set(tx, "count", 0)
pktgen.delay(500)

local out = assert(io.open(results, "w"))
out:write("rate_percent,seconds,sent,received,lost_percent,mpps_sent,mpps_received\n")

-- Sends at a rate for a trial's time; returns what was sent and what came back, and notes it.
local function trial(rate)
    pktgen.clr()
    pktgen.set(tx, "rate", rate)
    pktgen.start(tx)
    pktgen.delay(seconds * 1000)
    pktgen.stop(tx)
    pktgen.delay(500)                                 -- what is still on its way
    local sent = pktgen.portStats(tx, "port")[tonumber(tx)].opackets
    local back = pktgen.portStats(rx, "port")[tonumber(rx)].ipackets
    local lost = 100 * (sent - back) / math.max(sent, 1)
    local line = string.format("%.3f,%g,%d,%d,%.5f,%.4f,%.4f", rate, seconds, sent, back, lost, sent / seconds / 1e6,
        back / seconds / 1e6)
    print(line)
    out:write(line, "\n")
    out:flush()
    return sent, lost
end

-- Whether every trial at a rate keeps to the rule; the least that any of them sent.
local function keeps(rate)
    local least = math.huge
    for _ = 1, passes do
        local sent, lost = trial(rate)
        least = math.min(least, sent)
        if lost > tolerated or sent == 0 then return false, least end
    end
    return true, least
end

trial(math.min(1, highest))                           -- flows made, caches warm
local low, high, best = 0, highest, nil
local good, sent = keeps(highest)
if good then low, best = highest, sent end
while high - low > width do
    local middle = (low + high) / 2
    good, sent = keeps(middle)
    if good then low, best = middle, sent else high = middle end
end

local rule = tolerated == 0 and "NDR (none lost" or string.format("PDR (at most %g %% lost", tolerated)
local where = string.format("in each of %d trials of %g s)", passes, seconds)
if best then
    print(string.format("%s %s: %.4f Mpps at %.2f %% of the link", rule, where, best / seconds / 1e6, low))
    out:write(string.format("# %s %s: %.4f Mpps at %.2f %% of the link\n", rule, where, best / seconds / 1e6, low))
else
    print(string.format("%s %s: not met at any rate down to %g %% of the link", rule, where, width))
    out:write(string.format("# %s %s: not met at any rate down to %g %% of the link\n", rule, where, width))
end
out:close()
pktgen.quit()
