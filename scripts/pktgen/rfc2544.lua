-- pktgen's own rfc2544.lua against Weft with two-port.toml: it only lacks the MAC addresses to send to.
--
-- cd Pktgen-DPDK && pktgen -l 0,1 ... -- -P -m "1.[0-1]" -f .../scripts/pktgen/rfc2544.lua
--
-- Its results, in RFC2544_throughput_results.txt, allow 0.1 % loss: neither PDR (0.5 %) nor NDR (none).

-- Weft's two ports. The stock script takes these names from outside where its own lines for them are comments, as they are.
p0_destmac = os.getenv("WEFT_TX_MAC") or "02:00:00:00:02:01"
p1_destmac = os.getenv("WEFT_RX_MAC") or "02:00:00:00:02:02"

dofile(os.getenv("WEFT_RFC2544") or "scripts/rfc2544.lua")
