//! The ports that send and receive, and how they are driven from trial to trial.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use dpdk::{BURST, Eal, EalConfig, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue};

use super::frames::Frames;
use super::rate::Rate;
use super::sender::{Clock, Plan, Sender, Sent, drain, listen};
use super::sink::{Received, Sink};
use super::trial::{Back, Trial};
use super::{Args, FRAME_ROOM};

/// DPDK with what sends and what receives.
pub struct Ports {
    eal: Eal,
    clock: Clock,
    sender: Sender,
    sink: Sink,
    /// Keeps the devices' facts; the queues keep them running.
    _ports: Vec<Port>,
    /// Upper half of the stamps' trial number: this process.
    process: u32,
    trials: u32,
    /// Packets a second at the rate "max", once it was measured.
    most_pps: Option<f64>,
}

impl Ports {
    /// Starts DPDK on huge pages or without, and the ports.
    ///
    /// # Errors
    /// A device cannot be had; says why.
    pub fn start(args: &Args, huge_pages: bool) -> anyhow::Result<Self> {
        let lcores = args.lcores();
        let devices: Vec<String> =
            core::iter::once(args.vdev.clone()).chain(args.receive_vdev.clone()).collect();
        let prefix = format!("weft-bench-{}", std::process::id());
        let eal = Eal::init(&EalConfig {
            lcores: &lcores,
            main_lcore: *lcores.first().context("no lcore")?,
            memory_mb: args.memory_mb,
            huge_pages,
            devices: &devices,
            ..EalConfig::new(&prefix)
        })?;
        let config = PoolConfig { frame_room: FRAME_ROOM, ..PoolConfig::default() };
        let pool = Pool::new(&eal, "packets", &config)?;
        let mut ports = Vec::new();
        let mut ends: Vec<(RxQueue, TxQueue)> = Vec::new();
        for device in &devices {
            let (rx_descriptors, tx_descriptors) = (args.ring, args.ring);
            let config =
                PortConfig { rx_descriptors, tx_descriptors, promiscuous: true, ..PortConfig::default() };
            let mut port = Port::configure(&eal, device, &pool, &config)?;
            ends.extend(port.take_queues());
            ports.push(port);
        }
        let (receive, transmit) = match (ends.pop(), ends.pop()) {
            (Some((receive, _)), Some((_, transmit))) => (receive, transmit),
            (Some((receive, transmit)), None) => (receive, transmit),
            (None, _) => bail!("the device has no queue"),
        };
        let clock = Clock { cycles_a_second: eal.cycles_per_second() };
        let sender = Sender::new(&eal, &pool, transmit);
        let sink = Sink::new(&eal, receive);
        let process = std::process::id() & 0xfff;
        Ok(Self { eal, clock, sender, sink, _ports: ports, process, trials: 0, most_pps: None })
    }

    /// Sends every frame once. What cannot be sent at once waits; the rate is a packets' a second, or none.
    ///
    /// # Errors
    /// An lcore cannot be started.
    pub fn once(
        &mut self,
        frames: &Frames,
        rate: Rate,
        args: &Args,
        stop: &AtomicBool,
    ) -> anyhow::Result<Trial> {
        self.trial(frames, rate, None, args, stop)
    }

    /// Sends for so many seconds, over and over.
    ///
    /// # Errors
    /// An lcore cannot be started.
    pub fn trial(
        &mut self,
        frames: &Frames,
        rate: Rate,
        seconds: Option<f64>,
        args: &Args,
        stop: &AtomicBool,
    ) -> anyhow::Result<Trial> {
        let pps = match rate {
            Rate::Max => None,
            Rate::Pps(pps) => Some(pps),
            Rate::Percent(percent) => Some(self.most_pps(frames, args, stop)? * percent / 100.0),
        };
        self.trials = (self.trials + 1) & 0xfff;
        let plan = Plan {
            pps,
            cycles: seconds.map(|seconds| self.clock.cycles(seconds)),
            trial: self.process << 12 | self.trials,
            burst: args.burst.min(u16::try_from(BURST).unwrap_or(u16::MAX)),
            stamps: args.receive && !args.no_stamps,
        };
        let (sent, received) = self.run(frames, &plan, args.receive, stop)?;
        let seconds = self.clock.seconds(sent.cycles);
        let back =
            received.map(|received| Back::of(&received, sent.offered, seconds, self.clock.cycles_a_second));
        Ok(Trial {
            asked_pps: pps,
            seconds,
            offered: sent.offered,
            refused: sent.refused,
            skipped: sent.skipped,
            offered_pps: crate::number::float(sent.offered) / seconds,
            received: back,
        })
    }

    /// What is sent at the rate "max", measured for a second when it is first asked for.
    fn most_pps(&mut self, frames: &Frames, args: &Args, stop: &AtomicBool) -> anyhow::Result<f64> {
        if let Some(most) = self.most_pps {
            return Ok(most);
        }
        let most = self.trial(frames, Rate::Max, Some(1.0), args, stop)?.offered_pps;
        self.most_pps = Some(most);
        Ok(most)
    }

    /// Runs a plan on one lcore or two.
    fn run(
        &mut self,
        frames: &Frames,
        plan: &Plan,
        receive: bool,
        stop: &AtomicBool,
    ) -> anyhow::Result<(Sent, Option<Received>)> {
        let (clock, sender, sink) = (self.clock, &mut self.sender, &mut self.sink);
        sink.stamps = plan.stamps.then_some(plan.trial);
        // What an earlier trial left in the ring, or in the device beyond it, is none of this one's.
        drain(sink, clock);
        sink.received = Received::default();
        let two = receive && self.eal.lcores().len() > 1;
        let sent = if two {
            let done = AtomicBool::new(false);
            let sending: Job<'_> = Box::new(|| {
                let sent = sender.run(frames, plan, clock, None, stop);
                done.store(true, Ordering::Release);
                sent
            });
            let listening: Job<'_> = Box::new(|| {
                listen(sink, clock, &done);
                Sent::default()
            });
            let outcomes = self.eal.run(vec![sending, listening])?;
            *outcomes.first().context("the sender ended without a word")?
        } else {
            let here: Job<'_> = Box::new(|| {
                let sent = sender.run(frames, plan, clock, receive.then_some(&mut *sink), stop);
                if receive {
                    drain(sink, clock);
                }
                sent
            });
            *self.eal.run(vec![here])?.first().context("the sender ended without a word")?
        };
        let mut received = core::mem::take(&mut self.sink.received);
        received.close(sent.end, sent.offered);
        Ok((sent, receive.then_some(received)))
    }
}

/// What runs on an lcore.
type Job<'a> = Box<dyn FnOnce() -> Sent + Send + 'a>;
