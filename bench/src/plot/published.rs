//! What other balancers' own code took, for comparison: reference points that no run of `weft-bench` measures again.

/// One line of points: flows, and nanoseconds a packet.
pub(crate) struct Published {
    pub(crate) name: &'static str,
    pub(crate) points: &'static [(f64, f64)],
}

const K: f64 = 1e3;
const M: f64 = 1e6;

/// Where the figures come from and what they are of, as every plot that shows them says.
pub(crate) const SOURCE: &str = "Hollow marks are reference points, not measured in this run: each peer's own code, run by \
     this project once on one core (TSC 2.6 GHz, about 3.5 GHz when quiet, 2 MiB L2) in six interleaved rounds, 60-byte TCP \
     frames without options in random flow order, 100 backends, rewrite and flow state included, I/O excluded; \
     docs/performance.md has the table.";

/// Packets of established flows.
pub(crate) const ESTABLISHED: &[Published] = &[
    Published { name: "Katran (XDP), flow in its LRU", points: &[(K, 102.0), (64.0 * K, 297.0), (M, 377.0)] },
    Published { name: "VPP 26.10, lb4-gre4 node alone", points: &[(K, 21.0), (64.0 * K, 69.0), (M, 98.0)] },
    Published { name: "VPP, graph without input", points: &[(K, 49.0), (64.0 * K, 102.0), (M, 131.0)] },
    Published { name: "Beamer's mux, stateless", points: &[(K, 28.0), (64.0 * K, 30.0), (M, 31.0)] },
    Published { name: "Beamer's stateful mux", points: &[(K, 77.0), (64.0 * K, 176.0), (M, 459.0)] },
    Published { name: "GLB director (XDP), stateless", points: &[(K, 76.0), (64.0 * K, 84.0), (M, 84.0)] },
    Published { name: "DPVS, tunnel, less I/O", points: &[(K, 130.0), (32.0 * K, 555.0)] },
    Published { name: "minimal C loop, bursts of 32", points: &[(K, 12.7), (64.0 * K, 14.7), (M, 21.6)] },
    Published {
        name: "minimal C loop, a packet at a time",
        points: &[(K, 22.5), (64.0 * K, 78.0), (M, 181.0)],
    },
];

/// The first packet of a flow, with its entry made.
pub(crate) const SYN: &[Published] = &[Published {
    name: "Katran (XDP), SYN with insert",
    points: &[(K, 218.0), (64.0 * K, 581.0), (M, 1059.0)],
}];
