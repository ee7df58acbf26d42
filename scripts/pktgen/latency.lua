-- Latency of pktgen's own probe through Weft, beside a load of UDP: least, mean, greatest, and percentiles of samples.
--
-- pktgen -l 0,1 ... -- -P -m "1.0" -f scripts/pktgen/latency.lua                                   (one port)
-- WEFT_RX=1 WEFT_TX_MAC=... pktgen -l 0,1 ... -- -P -m "1.[0-1]" -f scripts/pktgen/latency.lua     (two ports)
--
-- The probe is a 60-byte UDP packet with its stamp behind the UDP header, and pktgen looks for it at that offset in what
-- comes back: only a VIP with `forward = "l2dsr"` and `protocol = "udp"` leaves it there (the VIP "probe" of one-port.toml
-- and two-port.toml). A tunnelled probe comes back unseen, and counts for nothing.

local function setting(name, default) return os.getenv(name) or default end

local tx = setting("WEFT_TX", "0")                          -- the port that sends
local rx = setting("WEFT_RX", tx)                           -- the port where it comes back
local tx_mac = setting("WEFT_TX_MAC", "02:00:00:00:02:01")  -- Weft's port that it sends to
local vip = setting("WEFT_VIP", "10.9.9.8")
local source = setting("WEFT_SOURCE", "10.1.0.1/24")
local rate = tonumber(setting("WEFT_RATE", "1"))            -- load beside the probes, percent of the link
local size = tonumber(setting("WEFT_SIZE", "64"))           -- its frames, check sequence included
local seconds = tonumber(setting("WEFT_SECONDS", "10"))
local every = tonumber(setting("WEFT_PROBE_US", "100"))     -- microseconds between probes
local results = setting("WEFT_RESULTS", "weft-latency.txt")
local samples_file = results .. ".samples"

pktgen.screen("off")
pktgen.stop("all")
pktgen.clr()
pktgen.set_mac(tx, "dst", tx_mac)
pktgen.set_ipaddr(tx, "src", source)
pktgen.set_ipaddr(tx, "dst", vip)
pktgen.set_proto(tx, "udp")
pktgen.set(tx, "size", size)
pktgen.set(tx, "rate", rate)
pktgen.set(tx, "count", 0)

-- Both ports: the one stamps, the other looks for stamps.
for _, port in ipairs(tx == rx and { tx } or { tx, rx }) do
    pktgen.latency(port, "rate", every)
    pktgen.latency(port, "enable")
end
-- pktgen keeps some 50,000 samples.
pktgen.latsampler_params(rx, "simple", 50000, math.floor(50000 / seconds), samples_file)

pktgen.delay(500)
pktgen.start(tx)
pktgen.delay(1000)                                          -- flows made, caches warm
pktgen.latsampler(rx, "on")
pktgen.delay(seconds * 1000)
pktgen.latsampler(rx, "off")
pktgen.stop(tx)
pktgen.delay(500)

local probe = pktgen.pktStats(rx)[tonumber(rx)].latency
local sent = pktgen.portStats(tx, "port")[tonumber(tx)].opackets
local back = pktgen.portStats(rx, "port")[tonumber(rx)].ipackets

local samples = {}
for line in io.lines(samples_file) do
    local nanoseconds = tonumber(line)                      -- the first line is a heading
    if nanoseconds then samples[#samples + 1] = nanoseconds / 1000 end
end
os.remove(samples_file)
table.sort(samples)

-- The least sample that `share` of all samples do not exceed.
local function percentile(share)
    return samples[math.max(1, math.ceil(share * #samples))]
end

local out = assert(io.open(results, "w"))
local function say(...)
    local line = string.format(...)
    print(line)
    out:write(line, "\n")
end

say("port %s to port %s, %s byte frames at %g %% of the link: %d sent, %d back (%.4f %% lost)", tx, rx, size, rate, sent,
    back, 100 * (1 - back / math.max(sent, 1)))
if probe.num_pkts == 0 then
    say("no probe came back with its stamp: is the VIP UDP and l2dsr, and is WEFT_RX the port where it comes back?")
else
    say("probes: %d back, %d out of order; least %.1f us, mean %.1f us, greatest %.1f us", probe.num_pkts,
        probe.num_skipped, probe.min_us, probe.avg_us, probe.max_us)
end
if #samples > 0 then
    say("%d samples: p50 %.1f us, p90 %.1f us, p99 %.1f us, p99.9 %.1f us", #samples, percentile(0.5), percentile(0.9),
        percentile(0.99), percentile(0.999))
end
out:close()
pktgen.quit()
