//! `scripts/demo --steering endpoint`: real Linux servers that ask clients to join at a port or address of their own,
//! and what Weft makes of that, without a token table or a flow entry for any join.
//!
//! Three passes over the same clients and servers: Weft steers by endpoint; Weft only learns, and does not know where
//! the servers announced themselves; and clients that ignore the servers' wish, served by `learn` beside `endpoint`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::balancer::{self, Balancer, Counted};
use crate::counters::Kernel;
use crate::demo::{self, Options};
use crate::document::Document;
use crate::endpoints::{self, Endpoint};
use crate::stand;
use crate::topology::{Family, Lab, Plan};
use crate::traffic::client::{self, Client};
use crate::{Error, Result, interrupt, report};

/// How many seconds a second subflow may take where none is expected.
const REFUSED_WAIT: u64 = 3;

/// One pass.
#[derive(Debug, Clone, Serialize)]
pub struct Pass {
    /// The VIP's `steering`.
    pub steering: Vec<&'static str>,
    /// What it shows.
    pub what: &'static str,
    /// What the client saw.
    pub client: client::Report,
    /// Joins whose subflow goes to the endpoint of the backend that answered the connection.
    pub at_own_endpoint: usize,
    /// Joins that backends' kernels completed.
    pub accepted: u64,
    /// Those of them at a port that the kernel announced.
    pub accepted_at_port: u64,
    /// Joins that reached a backend which does not know their token.
    pub no_token: u64,
    /// What Weft counted.
    pub weft: Counted,
    /// Whether a plain TCP connection to b1's endpoint was refused.
    pub stranger_refused: bool,
    /// Connections that strangers' SYNs opened at endpoints, or tried to, by the backends' kernels.
    pub strangers_at_backends: u64,
    /// What did not hold, as sentences.
    pub wrong: Vec<String>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Endpoints {
    /// Whether nothing was wrong in any pass.
    pub passed: bool,
    /// What servers announce.
    pub endpoint: Endpoint,
    /// The IP version of the clients' connections.
    pub ip: Family,
    /// Connections of each pass.
    pub connections: usize,
    /// How long it took, the lab's construction included.
    pub seconds: f64,
    /// What b1 was told, as `weftctl backend commands b1` printed it.
    pub commands: String,
    /// Every pass.
    pub passes: Vec<Pass>,
}

/// The body of `weft-lab demo --steering endpoint`.
pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::catch()?;
    let start = Instant::now();
    let report = play(options, start).inspect_err(|_| println!("FAIL"))?;
    print!("{}", summary(&report));
    report::conclude(&report, report.passed, options.report.as_deref())
}

/// What servers announce if nobody says: IPv6 with a port does not fit beside TCP timestamps.
fn kind(options: &Options) -> Endpoint {
    options.endpoint.unwrap_or(match options.family() {
        Family::V4 => Endpoint::Port,
        Family::V6 => Endpoint::Address,
    })
}

fn play(options: &Options, start: Instant) -> Result<Endpoints> {
    let progress = |what: &str| {
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(std::io::stderr(), "[{:5.1} s] {what}", start.elapsed().as_secs_f64());
    };
    let helper = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let binaries = demo::binaries(&helper)?;
    progress("network namespaces: a client with two paths, the balancer, three backends");
    let lab = Lab::new(&Plan { backends: 3, decapsulate: options.forward.is_tunnel(), helper })?;
    let endpoint = kind(options);
    let mut scene = Scene { lab, binaries, options, endpoint, commands: String::new() };
    if (options.family(), endpoint) == (Family::V6, Endpoint::Port) {
        // What the commands' note says to do.
        for backend in &scene.lab.backends {
            backend.namespace.sysctl(&["net.ipv4.tcp_timestamps=0"])?;
        }
    }
    scene.lab.follow_announcements()?;
    let mut passes = Vec::new();
    progress("first pass: steering = [\"endpoint\"]; the servers run what `weftctl backend commands` prints");
    passes.push(scene.pass("endpoint", &["endpoint"], "joins at the servers' own ports or addresses")?);
    progress("second pass: steering = [\"learn\"]; Weft does not know what the servers announce");
    passes.push(scene.pass("unaware", &["learn"], "what happens without")?);
    progress(
        "third pass: steering = [\"endpoint\", \"learn\"]; the clients ignore flag C and every announcement",
    );
    scene.lab.ignore_announcements()?;
    passes.push(scene.pass("both", &["endpoint", "learn"], "clients that ignore flag C")?);
    let Scene { lab, commands, .. } = scene;
    lab.take_down()?;
    progress("cleaned up: no namespace, process or file is left");
    Ok(Endpoints {
        passed: passes.iter().all(|pass| pass.wrong.is_empty()),
        endpoint,
        ip: options.family(),
        connections: usize::from(options.connections),
        seconds: start.elapsed().as_secs_f64(),
        commands,
        passes,
    })
}

struct Scene<'o> {
    lab: Lab,
    binaries: balancer::Binaries,
    options: &'o Options,
    endpoint: Endpoint,
    commands: String,
}

impl Scene<'_> {
    /// One pass: a fresh balancer, the clients, a stranger, and what everybody counted.
    fn pass(&mut self, name: &str, schemes: &[&'static str], what: &'static str) -> Result<Pass> {
        let options = balancer::Options::new(self.options.forward, true);
        let mut document = Document::new(&options, &self.lab.file(name));
        document.steer_by(schemes, self.endpoint);
        let weft = Balancer::start_with(&self.lab, &self.lab.balancer, &self.binaries, &document)?;
        if self.commands.is_empty() {
            self.commands = weft.weftctl(&["backend", "commands", "b1"])?;
            endpoints::tell_all(&weft, &self.lab)?;
        }
        let before = stand::kernels(&self.lab)?;
        let family = self.options.family();
        let mut asked = client::Options::new(family, usize::from(self.options.connections));
        asked.bytes = 65_536;
        if !schemes.contains(&"endpoint") {
            asked.join_wait = REFUSED_WAIT;
        }
        let client = Client::start(&self.lab, &asked)?.finish(Duration::from_secs(120))?;
        let stranger_refused = endpoints::is_refused(&self.lab, self.endpoint.of(family, 1))?;
        let after = stand::kernels(&self.lab)?;
        let servers: Vec<Kernel> =
            after.iter().zip(&before).map(|(a, b)| a.since(b)).take(self.lab.backends.len()).collect();
        let total = |counter: &str| servers.iter().map(|kernel| kernel.mptcp(counter)).sum();
        let mut pass = Pass {
            steering: schemes.to_vec(),
            what,
            at_own_endpoint: self.at_own_endpoint(&client),
            client,
            accepted: total("MPJoinAckRx"),
            accepted_at_port: total("MPJoinPortAckRx"),
            no_token: total("MPJoinNoTokenFound"),
            weft: weft.counted()?,
            stranger_refused,
            strangers_at_backends: total("MPCapableEndpAttempt"),
            wrong: Vec::new(),
        };
        pass.wrong = judge(&pass, self.endpoint);
        Ok(pass)
    }

    /// Connections whose joins went to the endpoint of the backend that answered.
    fn at_own_endpoint(&self, client: &client::Report) -> usize {
        let family = self.options.family();
        let own = |connection: &&client::Connection| {
            let backend = self.lab.backends.iter().find(|backend| backend.name == connection.backend);
            backend.is_some_and(|backend| {
                connection.joined_at.contains(&self.endpoint.of(family, backend.number))
            })
        };
        client.connections.iter().filter(own).count()
    }
}

/// What does not hold of a pass, as sentences.
fn judge(pass: &Pass, endpoint: Endpoint) -> Vec<String> {
    let connections = pass.client.connections.len();
    let (by_endpoint, learned) = (pass.weft.counter("endpoint_join"), pass.weft.counter("token_learned"));
    let mut wrong = pass.client.broken();
    let mut must = |holds: bool, sentence: String| wrong.extend((!holds).then_some(sentence));
    must(
        pass.no_token == 0,
        format!("{} joins reached a backend that does not know their token", pass.no_token),
    );
    let joined = pass.client.joined();
    match pass.steering[..] {
        ["endpoint"] => {
            must(
                pass.client.spread() == connections,
                format!("{joined} of {connections} joined and carried data"),
            );
            must(
                pass.at_own_endpoint == connections,
                format!("{} joins at their backend's own", pass.at_own_endpoint),
            );
            must(
                by_endpoint >= pass.accepted && pass.accepted > 0,
                format!("{by_endpoint} joins by endpoint"),
            );
            must(learned == 0, format!("{learned} tokens learned where none are needed"));
            must(
                pass.weft.counter("flow_inserted") <= connections as u64,
                "a join made a flow entry".to_owned(),
            );
            must(pass.stranger_refused, "a stranger at an endpoint was not refused".to_owned());
            must(pass.strangers_at_backends == 0, "a stranger reached a backend by its endpoint".to_owned());
            let at_port = if endpoint == Endpoint::Port { pass.accepted } else { 0 };
            must(pass.accepted_at_port == at_port, format!("{} joins at ports", pass.accepted_at_port));
        }
        ["learn"] => {
            must(joined == 0, format!("{joined} connections joined although Weft knows no endpoint"));
        }
        _ => {
            must(
                pass.client.spread() == connections,
                format!("{joined} of {connections} joined and carried data"),
            );
            let steered = pass.weft.joins_by_token;
            must(steered >= pass.accepted && pass.accepted > 0, format!("{steered} joins by token"));
            let ignored = pass.weft.counter("endpoint_ignored");
            must(ignored >= pass.accepted, format!("{ignored} joins counted that ignore flag C"));
        }
    }
    wrong
}

fn summary(report: &Endpoints) -> String {
    let mut text = format!(
        "\nWeft: {} MPTCP connections over {} in each pass, 3 Linux servers that announce {} of their own\n\n\
         what b1 was told:\n{}\n",
        report.connections,
        report.ip,
        if report.endpoint == Endpoint::Port { "a port" } else { "an address" },
        report.commands.lines().map(|line| format!("    {line}\n")).collect::<String>(),
    );
    for pass in &report.passes {
        text.push_str(&format!("steering = {:?}: {}\n", pass.steering, pass.what));
        let weft = &pass.weft;
        let rows = [
            ("connections that got a second subflow", pass.client.joined() as u64),
            ("  at their own backend's endpoint", pass.at_own_endpoint as u64),
            ("joins completed by the servers' kernels (MPJoinAckRx)", pass.accepted),
            ("joins without a connection there (MPJoinNoTokenFound)", pass.no_token),
            ("joins that Weft sent by endpoint", weft.counter("endpoint_join")),
            ("joins that Weft sent by token", weft.joins_by_token),
            ("tokens learned", weft.counter("token_learned")),
            ("flow entries made", weft.counter("flow_inserted")),
            ("strangers at endpoints, refused by Weft", weft.counter("endpoint_no_join")),
        ];
        for (what, figure) in rows {
            text.push_str(&format!("  {what:<56} {figure:>8}\n"));
        }
        pass.wrong.iter().take(10).for_each(|wrong| text.push_str(&format!("  FAIL {wrong}\n")));
        text.push('\n');
    }
    text.push_str(&format!("{:.0} s\n", report.seconds));
    text
}
