//! The smallest forwarder: two virtual devices, one worker, MAC addresses swapped, packets per second printed.
//!
//! It measures what this crate and DPDK cost a packet, without a parser or a table: `cargo run --release --example
//! forward -- 5`, and the same with `WEFT_DPDK_LINK=shared` at build time to compare the two ways of linking.
//! Time is the worker's own CPU time, so that what else the machine does counts for less; an idle machine gives the
//! same rate by the clock. Arguments: seconds (3), `no-huge`.

use std::error::Error;
use std::time::{Duration, Instant};

use dpdk::{Burst, Eal, EalConfig, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue};
use rustix::time::{ClockId, clock_gettime};

/// Bursts between two looks at the clock.
const ROUND: u64 = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.first().map_or(Ok(3), |text| text.parse())?;
    let huge_pages = !arguments.iter().any(|argument| argument == "no-huge");
    let devices = ["net_null0".to_owned(), "net_null1".to_owned()];
    let prefix = format!("weft-forward-{}", std::process::id());
    let eal = Eal::init(&EalConfig { devices: &devices, huge_pages, ..EalConfig::new(&prefix) })?;
    let pool = Pool::new(&eal, "packets", &PoolConfig::default())?;
    let mut ports = Vec::new();
    let mut queues = Vec::new();
    for device in &devices {
        let mut port = Port::configure(&eal, device, &pool, &PortConfig::default())?;
        queues.extend(port.take_queues());
        ports.push(port);
    }
    let burst = Burst::with_limit(&eal, 32);
    let counts = eal.run(vec![move || forward(queues, burst, Duration::from_secs(seconds))])?;
    for (packets, time) in counts {
        let rate = u128::from(packets) * 10_000 / time.as_micros().max(1);
        println!("{}.{:04} Mpps", rate / 10_000, rate % 10_000);
    }
    println!("{} mbufs in use", pool.in_use());
    Ok(())
}

fn forward(mut queues: Vec<(RxQueue, TxQueue)>, mut burst: Burst, time: Duration) -> (u64, Duration) {
    let start = Instant::now();
    let begun = cpu_time();
    let mut packets = 0;
    while start.elapsed() < time {
        for _ in 0..ROUND {
            for (rx, tx) in &mut queues {
                let count = rx.receive(&mut burst);
                for index in 0..count {
                    if let Some(addresses) = burst.bytes_mut(index).first_chunk_mut::<12>() {
                        addresses.rotate_left(6);
                    }
                }
                let all = burst.held();
                packets += u64::from(tx.transmit(&mut burst, all).sent);
            }
        }
    }
    (packets, cpu_time().saturating_sub(begun))
}

/// How long this thread has run.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
