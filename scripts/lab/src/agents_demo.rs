//! `scripts/demo --steering agent`: two appliances behind a route that sends each flow to one of them, without agents on the
//! backends and with. What it shows is also a test (tests/agents.rs), which shares the [`Site`].

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agents::Certificates;
use crate::balancer::{Balancer, Binaries, Forward, Options};
use crate::demo;
use crate::document::Document;
use crate::ecmp::Ecmp;
use crate::process::Task;
use crate::stand::{self, LIMIT};
use crate::topology::{Appliance, Family, Lab, Plan};
use crate::traffic::client::{self, Client};
use crate::{Error, Result, interrupt, report};

/// The two appliances.
pub const BOTH: [Appliance; 2] = [Appliance::FIRST, Appliance::SECOND];

/// Backends of the site.
pub const BACKENDS: u8 = 3;

/// Two appliances, with agents on every backend or without. Fields are dropped in this order, the lab last.
#[derive(Debug)]
pub struct Site {
    /// The agents, or none.
    pub agents: Vec<Task>,
    /// The appliances.
    pub weft: Vec<Balancer>,
    /// The route to them.
    pub ecmp: Ecmp,
    /// Everything else.
    pub lab: Lab,
}

impl Site {
    /// Builds it, waits until everybody knows everybody, and routes flows to both.
    pub fn new(helper: PathBuf, binaries: &Binaries, forward: Forward, with_agents: bool) -> Result<Self> {
        let lab = Lab::new(&Plan { backends: BACKENDS, decapsulate: forward.is_tunnel(), helper })?;
        let ecmp = Ecmp::add(&lab)?;
        let certificates = if with_agents { Some(Certificates::make(&lab, &BOTH)?) } else { None };
        let options = Options::new(forward, true);
        let mut weft = Vec::new();
        for (appliance, namespace, name) in
            [(Appliance::FIRST, &lab.balancer, "first"), (Appliance::SECOND, &ecmp.peer, "second")]
        {
            let document = Document { appliance, ..Document::new(&options, &lab.file(name)) };
            weft.push(match &certificates {
                Some(certificates) => certificates.balancer(&lab, namespace, binaries, &document)?,
                None => Balancer::start_with(&lab, namespace, binaries, &document)?,
            });
        }
        let agents = match &certificates {
            Some(certificates) => certificates.agents(&lab, binaries, &BOTH)?,
            None => Vec::new(),
        };
        let site = Self { agents, weft, ecmp, lab };
        if with_agents {
            site.wait_for_agents()?;
        }
        site.ecmp.route(&BOTH)?;
        Ok(site)
    }

    /// Until each appliance has heard all there is from every backend.
    fn wait_for_agents(&self) -> Result<()> {
        for weft in &self.weft {
            let heard = interrupt::poll(LIMIT, Duration::from_millis(100), || {
                let said = weft.ask(&["agents"])?;
                let rows = said.get("agents").and_then(Value::as_array).cloned().unwrap_or_default();
                let is_heard = |row: &Value| {
                    let is_connected = row.get("connected").and_then(Value::as_bool) == Some(true);
                    is_connected && row.get("dumps").and_then(Value::as_u64) > Some(0)
                };
                let all = rows.len() == usize::from(BACKENDS) && rows.iter().all(is_heard);
                Ok(all.then_some(()))
            })?;
            heard.ok_or_else(|| Error::Timeout {
                what: "not every agent was heard".to_owned(),
                seconds: LIMIT.as_secs(),
                detail: weft.weftctl(&["agents"]).unwrap_or_default(),
            })?;
        }
        Ok(())
    }

    /// A client of the first appliance's network that moves data over all its subflows until it is told to finish.
    pub fn client(&self, family: Family, connections: usize) -> Result<Client> {
        let usual = client::Options::new(family, connections);
        let options = client::Options { until_eof: true, bytes: 65_536, join_wait: 8, ..usual };
        Client::start(&self.lab, &options)
    }

    /// What an appliance's data plane counted of agents' reports.
    pub fn counted(weft: &Balancer, counter: &str) -> Result<u64> {
        let said = weft.ask(&["agents"])?;
        let rows = said.get("counters").and_then(Value::as_array).cloned().unwrap_or_default();
        let row = rows.iter().find(|row| row.get("name").and_then(Value::as_str) == Some(counter));
        Ok(row.and_then(|row| row.get("count")?.as_u64()).unwrap_or(0))
    }
}

/// What doctor prints of an appliance, whether all is well or not.
pub fn doctor(weft: &Balancer) -> String {
    weft.weftctl(&["doctor"]).unwrap_or_else(|error| error.to_string())
}

/// What came of one pass.
#[derive(Debug, serde::Serialize)]
struct Pass {
    agents: bool,
    joined: usize,
    /// Join SYNs dropped because their token was not known, by appliance.
    unknown: Vec<u64>,
    /// Tokens that agents proved, by appliance.
    proven: Vec<u64>,
    /// Joins that a server did not know, by its own kernel.
    misdirected: u64,
    /// What doctor says about joins, of each appliance.
    doctor: Vec<String>,
}

/// The body of `weft-lab demo --steering agent`.
pub fn run(options: &demo::Options) -> Result<ExitCode> {
    interrupt::catch()?;
    let start = Instant::now();
    let progress = |what: &str| {
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(std::io::stderr(), "[{:5.1} s] {what}", start.elapsed().as_secs_f64());
    };
    let connections = usize::from(options.connections);
    progress("first pass: two appliances behind one route, no agents");
    let without = pass(options, false).inspect_err(|_| println!("FAIL"))?;
    progress("second pass: the same with weft-agent on every backend");
    let with = pass(options, true).inspect_err(|_| println!("FAIL"))?;
    println!(
        "{connections} connections, each with a second path; the route sends each flow to one of two appliances\n"
    );
    println!("                joined    join SYNs dropped   tokens proven   joins a server did not know");
    for pass in [&without, &with] {
        println!(
            "{:<14}  {:<8}  {:<18}  {:<14}  {}",
            if pass.agents { "with agents" } else { "without agents" },
            pass.joined,
            format!("{:?}", pass.unknown),
            format!("{:?}", pass.proven),
            pass.misdirected
        );
    }
    println!();
    for pass in [&without, &with] {
        let with = if pass.agents { "with" } else { "without" };
        println!("weftctl doctor {with} agents: {}", pass.doctor.first().map_or("", String::as_str));
    }
    let passed = with.joined == connections && with.misdirected == 0 && without.joined < connections;
    report::conclude(&[&without, &with], passed, options.report.as_deref())
}

fn pass(options: &demo::Options, with_agents: bool) -> Result<Pass> {
    let helper = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let binaries = demo::binaries(&helper)?;
    let site = Site::new(helper, &binaries, options.forward, with_agents)?;
    let mut client = site.client(options.family(), usize::from(options.connections))?;
    let joined = client.joined(LIMIT)?;
    let (mut unknown, mut proven, mut words) = (Vec::new(), Vec::new(), Vec::new());
    for weft in &site.weft {
        unknown.push(weft.counted()?.drop("unknown_token"));
        proven.push(Site::counted(weft, "agent_proven")?);
        let said = doctor(weft);
        words.extend(said.lines().filter(|line| line.contains("joins:")).map(|line| line.trim().to_owned()));
    }
    let kernels = stand::kernels(&site.lab)?;
    let misdirected = kernels.iter().map(|kernel| kernel.mptcp("MPJoinNoTokenFound")).sum();
    let broken = client.finish(LIMIT)?.broken();
    if let Some(first) = broken.first() {
        return Err(Error::other(format!("a connection broke: {first}")));
    }
    Ok(Pass { agents: with_agents, joined, unknown, proven, misdirected, doctor: words })
}
