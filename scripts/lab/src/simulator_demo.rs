//! `scripts/demo --steering NAME` for schemes that no kernel speaks: simulated clients and servers (`weft-bench peer`) in
//! namespaces of their own, and the shipped Weft between them on real links.
//!
//! Three passes over fresh endpoints and a fresh balancer. In the first both sides do what the scheme asks. In the second
//! Weft steers nothing. In the third one side alone knows the scheme: servers whose tokens are random under a token
//! map, or that take no key and stamp no number, and a Weft that only learns where tokens are explicit.
//!
//! Where Weft chooses the keys nothing is kept, and the first pass shows it: while every connection is silent Weft is
//! ended, and another one, which never saw any of them, steers their joins and everything after.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::balancer::{Balancer, Binaries, Counted, Forward};
use crate::demo::{self, Options};
use crate::simulator::{self, Simulator};
use crate::topology::{Appliance, BALANCER_INTERFACE, BALANCER_MAC, Family, Lab, MTU, PORT, Plan};
use crate::{Error, Result, interrupt, report};

/// What `--steering` calls these schemes.
pub const NAMES: [&str; 5] = ["ranges", "cipher", "chosen-key", "explicit-g", "explicit-e"];

/// Servers of a pass.
const SERVERS: u8 = 3;
/// The last number of the first pass' first server's addresses; the others follow, then those of the next pass: nobody
/// remembers them by another's MAC address.
const FIRST_SERVER: u8 = 41;
/// The last number of the first pass' client's addresses.
const FIRST_CLIENT: u8 = 31;
/// Joins of each connection.
const JOINS: u64 = 2;
/// How long a client may take. Weft refuses joins of unknown tokens by RST, so that none waits for repeats.
const LIMIT: Duration = Duration::from_secs(120);
/// How many seconds connections are silent while Weft is replaced.
const HOLD: &str = "8";

/// A pass.
#[derive(Debug, Clone, Serialize)]
pub struct Pass {
    /// What it shows.
    pub what: &'static str,
    /// The lines of `[vip.mptcp]` that Weft was told.
    pub weft_is_told: String,
    /// What the client reported.
    pub client: Value,
    /// What each server reported.
    pub servers: Vec<Value>,
    /// What Weft counted.
    pub weft: Counted,
    /// What was to hold and did not.
    pub wrong: Vec<String>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Every join was home in the first pass, and many were not in the others.
    pub passed: bool,
    /// The scheme.
    pub steering: String,
    /// How Weft handed packets to the servers.
    pub forward: Forward,
    /// The IP version of the client's connections.
    pub ip: Family,
    /// Connections of each pass.
    pub connections: u16,
    /// How long it took, the lab's construction included.
    pub seconds: f64,
    /// Every pass.
    pub passes: Vec<Pass>,
}

/// The lines of `[vip.mptcp]`, but `unknown_token`.
fn lines(scheme: &str) -> &'static str {
    match scheme {
        "ranges" => "steering = [\"token-map\"]\ntoken_map = \"ranges\"\n",
        "cipher" => {
            "steering = [\"token-map\"]\ntoken_map = \"cipher\"\n\
             cipher_key_even = \"0011223344556677\"\ncipher_key_odd = \"8899aabbccddeeff\"\n"
        }
        "chosen-key" => "steering = [\"chosen-key\"]\nkey_secret = \"00112233445566778899aabbccddeeff\"\n",
        "explicit-g" => "steering = [\"learn\"]\nexplicit_tokens = [\"G\"]\n",
        "explicit-e" => "steering = [\"learn\"]\nexplicit_tokens = [\"E\"]\n",
        "learn" => "steering = [\"learn\"]\n",
        _ => "steering = []\n",
    }
}

/// How clients name themselves to servers of a scheme: encrypted tokens fit no key.
fn signal(scheme: &str) -> &'static str {
    match scheme {
        "explicit-g" => "g",
        "explicit-e" | "cipher" => "e",
        _ => "keys",
    }
}

/// What Weft and the servers are told in each pass, and what that shows.
fn plan(scheme: &str) -> [(&str, &str, &'static str); 3] {
    let half = match scheme {
        "ranges" | "cipher" => {
            (scheme, "none", "Weft reads tokens, and the servers draw tokens at random, as kernels do")
        }
        "chosen-key" => (
            scheme,
            "none",
            "Weft chooses keys, and the servers take none and stamp no number, as kernels do",
        ),
        _ => ("learn", scheme, "Weft learns from keys, and is not told that tokens are explicit"),
    };
    [
        (scheme, scheme, "Weft and the servers agree on the scheme"),
        ("none", scheme, "Weft steers nothing: joins are hashed"),
        half,
    ]
}

/// The last number of a server's addresses.
const fn host(pass: u8, number: u8) -> u8 {
    FIRST_SERVER + 10 * pass + number - 1
}

/// A configuration, for Weft or for what the servers are to do.
fn configuration(scheme: &str, forward: Forward, pass: u8, runtime_dir: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let own = Appliance::FIRST;
    let mut text = format!(
        "[dataplane]\nworkers = [{}]\nflows = 100000\ntokens = 100000\nruntime_dir = \"{}\"\n\
         [[dataplane.port]]\ndevice = \"net_af_packet0,iface={BALANCER_INTERFACE}\"\nmac = \"{BALANCER_MAC}\"\n\
         address = [\"{}/24\", \"{}/64\"]\nmtu = {MTU}\n[[pool]]\nname = \"simulated\"\n",
        usize::from(cores > 1),
        runtime_dir.display(),
        own.four(1),
        own.six(1),
    );
    for number in 1..=SERVERS {
        let host = host(pass, number);
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "[[pool.backend]]\nname = \"s{number}\"\naddress = [\"10.0.1.{host}\", \"fd00:1::{host}\"]\n\
             number = {number}\n"
        );
    }
    let [four, six] = [Family::V4, Family::V6].map(Family::vip);
    let _ = write!(
        text,
        "[[vip]]\nname = \"web\"\naddress = [\"{four}\", \"{six}\"]\nport = {PORT}\nprotocol = \"tcp\"\n\
         pool = \"simulated\"\nforward = \"{}\"\n[vip.mptcp]\n{}unknown_token = \"reset\"\n",
        forward.name(),
        lines(scheme)
    );
    text
}

/// The body of `weft-lab demo --steering NAME`.
pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::catch()?;
    let start = Instant::now();
    let report = play(options, start).inspect_err(|_| println!("FAIL"))?;
    print!("{}", summary(&report));
    report::conclude(&report, report.passed, options.report.as_deref())
}

/// How Weft hands packets over: chosen keys travel in GUE's header and nowhere else.
fn forward(options: &Options) -> Result<Forward> {
    match (options.steering.as_str(), options.forward) {
        // What is said where nothing is.
        ("chosen-key", Forward::L2dsr | Forward::Gue) => Ok(Forward::Gue),
        ("chosen-key", Forward::Ipip) => {
            Err(Error::other("--steering chosen-key works over GUE alone: use --forward gue"))
        }
        (_, forward) => Ok(forward),
    }
}

fn play(options: &Options, start: Instant) -> Result<Report> {
    let forward = forward(options)?;
    if options.client_version == "v0" && signal(&options.steering) != "keys" {
        let steering = &options.steering;
        return Err(Error::other(format!("--steering {steering} carries tokens, which version 0 does not")));
    }
    let progress = |what: &str| {
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(std::io::stderr(), "[{:5.1} s] {what}", start.elapsed().as_secs_f64());
    };
    let helper = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let binaries = demo::binaries(&helper)?;
    let program = simulator::program(binaries.dataplane.parent().unwrap_or(Path::new(".")))?;
    progress("network namespaces: the balancer, a simulated client with two paths, three simulated servers");
    let lab = Lab::new(&Plan { backends: 0, decapsulate: false, helper })?;
    let scene = Scene { lab, binaries, program, options, forward };
    let mut passes = Vec::new();
    for ((number, order), (weft, servers, what)) in
        (0..).zip(["first", "second", "third"]).zip(plan(&options.steering))
    {
        progress(&format!("{order} pass: {what}"));
        passes.push(scene.pass(number, weft, servers, what)?);
    }
    scene.lab.take_down()?;
    progress("cleaned up: no namespace, process or file is left");
    Ok(Report {
        passed: passes.iter().all(|pass| pass.wrong.is_empty()),
        steering: options.steering.clone(),
        forward,
        ip: options.family(),
        connections: options.connections,
        seconds: start.elapsed().as_secs_f64(),
        passes,
    })
}

struct Scene<'o> {
    lab: Lab,
    binaries: Binaries,
    program: PathBuf,
    options: &'o Options,
    forward: Forward,
}

impl Scene<'_> {
    /// One pass: fresh servers, a fresh balancer, a client, and what everybody counted.
    fn pass(&self, number: u8, told: &str, servers_do: &str, what: &'static str) -> Result<Pass> {
        let servers = self.servers(number, servers_do)?;
        let weft = self.balancer(number, told, "")?;
        let client = self.client(number)?;
        let (client, weft) = if self.is_replaced(number) {
            self.replace(number, told, client, weft)?
        } else {
            (client.report(LIMIT)?, weft.counted()?)
        };
        let servers: Result<Vec<Value>> =
            servers.into_iter().map(|server| server.stop(Duration::from_secs(10))).collect();
        let mut pass = Pass {
            what,
            weft_is_told: lines(told).to_owned(),
            client,
            servers: servers?,
            weft,
            wrong: Vec::new(),
        };
        let asked = u64::from(self.options.connections);
        pass.wrong = match (number, self.options.steering.as_str()) {
            (0, scheme) => not_home(&pass, scheme, asked),
            (2, "chosen-key") => not_broken(&pass),
            _ => not_astray(&pass),
        };
        Ok(pass)
    }

    /// A fresh balancer.
    fn balancer(&self, number: u8, told: &str, suffix: &str) -> Result<Balancer> {
        let runtime_dir = self.lab.file(&format!("pass{number}{suffix}"));
        let text = configuration(told, self.forward, number, &runtime_dir);
        Balancer::start_text(&self.lab, &self.lab.balancer, &self.binaries, &runtime_dir, &text)
    }

    /// Whether another Weft takes over in this pass.
    fn is_replaced(&self, number: u8) -> bool {
        number == 0 && self.options.steering == "chosen-key"
    }

    /// Puts another Weft with empty tables in the place of one that has seen every handshake; the client's report, and
    /// what both counted.
    fn replace(&self, number: u8, told: &str, client: Simulator, weft: Balancer) -> Result<(Value, Counted)> {
        let asked = u64::from(self.options.connections);
        let opened = interrupt::poll(Duration::from_secs(60), Duration::from_millis(200), || {
            let counted = weft.counted()?;
            Ok((counted.rule("chosen_key") >= asked).then_some(()))
        })?;
        opened.ok_or_else(|| Error::other("the client did not open its connections within a minute"))?;
        // Their first data goes there and back within milliseconds.
        std::thread::sleep(Duration::from_secs(1));
        let first = weft.counted()?;
        drop(weft);
        let weft = self.balancer(number, told, "again")?;
        let report = client.report(LIMIT)?;
        let second = weft.counted()?;
        let mut both = first.and(second.clone());
        both.counters.insert("after_the_restart_by_timestamp".to_owned(), second.rule("timestamp"));
        both.counters.insert("after_the_restart_joins".to_owned(), second.rule("token_map"));
        Ok((report, both))
    }

    /// The servers, each on a host of its own.
    fn servers(&self, pass: u8, scheme: &str) -> Result<Vec<Simulator>> {
        let theirs = self.lab.file(&format!("servers{pass}.toml"));
        let nowhere = self.lab.file("nowhere");
        // What keys are made of servers need not know: theirs is another.
        let text = configuration(scheme, self.forward, pass, &nowhere)
            .replace("00112233445566778899aabbccddeeff", "ffffffffffffffffffffffffffffffff");
        std::fs::write(&theirs, text).map_err(|e| Error::io("cannot write the servers' configuration", e))?;
        let (service, config) = (self.options.family().service().to_string(), theirs.display().to_string());
        let start = |number| {
            let host = host(pass, number);
            let [[four, four_also], [six, six_also]] =
                [Family::V4, Family::V6].map(|family| simulator::addresses(family, host));
            let words = ["--service", &service, "--config", &config, "--seconds", "180"];
            let addresses =
                ["--address", &four, "--address", &six, "--also", &four_also, "--also", &six_also];
            Simulator::start(&self.lab, &self.program, "server", host, &[&words[..], &addresses].concat())
        };
        (1..=SERVERS).map(start).collect()
    }

    fn client(&self, pass: u8) -> Result<Simulator> {
        let (own, family) = (Appliance::FIRST, self.options.family());
        let via = [1, 2].map(|net| match family {
            Family::V4 => own.four(net),
            Family::V6 => own.six(net),
        });
        let host = FIRST_CLIENT + pass;
        let addresses = [Family::V4, Family::V6].map(|family| simulator::addresses(family, host)).concat();
        let (connections, joins) = (self.options.connections.to_string(), JOINS.to_string());
        let (service, signal) = (family.service().to_string(), signal(&self.options.steering));
        let mut words = vec!["--service", &service, "--via", &via[0], "--via", &via[1], "--joins", &joins];
        words.extend(["--client-version", &self.options.client_version]);
        words.extend(["--connections", &connections, "--signal", signal, "--seconds", "100"]);
        addresses.iter().for_each(|address| words.extend(["--address", address]));
        if self.is_replaced(pass) {
            // All at once, so that all have seen the first Weft.
            words.extend(["--hold", HOLD, "--at-once", "4096"]);
        }
        Simulator::start(&self.lab, &self.program, "client", host, &words)
    }
}

impl Pass {
    /// One of the client's figures.
    fn client(&self, name: &str) -> u64 {
        number(&self.client, &format!("/client/{name}"))
    }

    /// One of the servers' figures, of all of them.
    fn servers(&self, name: &str) -> u64 {
        self.servers.iter().map(|server| number(server, &format!("/all_servers/{name}"))).sum()
    }

    /// Joins that reached a server which does not hold their connection.
    fn strangers(&self) -> usize {
        let lists = self.servers.iter().filter_map(|s| s.pointer("/all_servers/unknown_tokens")?.as_array());
        lists.map(Vec::len).sum()
    }
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// What is wrong with a pass in which everything is to succeed, as sentences.
fn not_home(pass: &Pass, scheme: &str, connections: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut must = |holds: bool, sentence: String| wrong.extend((!holds).then_some(sentence));
    let (whole, joined, accepted) = (pass.client("whole"), pass.client("joined"), pass.servers("joined"));
    let joins = JOINS * connections;
    must(pass.client["passed"] == true, "the client is not content: see its report".to_owned());
    must(whole == connections, format!("{whole} of {connections} connections were whole"));
    must((joined, accepted) == (joins, joins), format!("{joined} of {joins} joined, {accepted} at servers"));
    must(pass.strangers() == 0, format!("{} joins reached another's server", pass.strangers()));
    let proofs = pass.servers("wrong_hmac") + pass.servers("wrong_echo") + pass.servers("damaged");
    must(proofs == 0, format!("{proofs} wrong proofs or frames at the servers"));
    let busy = pass.servers.iter().filter(|server| number(server, "/all_servers/connections") > 0).count();
    must(busy > 1 || connections < 10, "all connections went to one server, which shows nothing".to_owned());
    if scheme.starts_with("explicit") {
        let read = pass.weft.counter("explicit_token");
        must(read >= connections, format!("Weft read {read} explicit tokens"));
        must(
            pass.weft.joins_by_token >= joins,
            format!("{} joins went by learned token", pass.weft.joins_by_token),
        );
    } else if scheme == "chosen-key" {
        let (given, kept) = (pass.servers("given"), pass.weft.counter("flow_inserted"));
        must(given == connections, format!("servers took {given} keys of {connections}"));
        let odd = pass.servers("given_wrong") + pass.servers("numbered_wrong");
        must(odd == 0, format!("{odd} keys or timestamps that named another server"));
        let learned = pass.weft.counter("token_learned");
        must(kept + learned == 0, format!("Weft kept {kept} flows and {learned} tokens"));
        let [joined, later] =
            ["after_the_restart_joins", "after_the_restart_by_timestamp"].map(|name| pass.weft.counter(name));
        must(
            joined >= joins && later >= 2 * joins,
            format!("a Weft with empty tables steered {joined} joins and {later} later packets"),
        );
    } else {
        let learned = pass.weft.counter("token_learned");
        must(learned == 0, format!("{learned} tokens were learned where none are needed"));
        let (seen, missed) = (pass.weft.counter("join_syn"), pass.weft.counter("token_map_miss"));
        must(
            seen >= joins && missed == 0,
            format!("of {seen} joins that Weft saw {missed} named no server by their token"),
        );
    }
    wrong
}

/// What is wrong with a pass in which at least a third of the joins is to fail, and connections are not.
fn not_astray(pass: &Pass) -> Vec<String> {
    let (asked, joins, joined) = (pass.client("asked"), pass.client("joins"), pass.client("joined"));
    let mut wrong = Vec::new();
    if pass.client("whole") == 0 || asked == 0 {
        wrong.push("no connection was whole".to_owned());
    }
    if (joins - joined.min(joins)) * 3 < joins || joins == 0 {
        wrong.push(format!("{joined} of {joins} joins succeeded although nothing brought them home"));
    }
    wrong
}

/// What is wrong with a pass in which later packets say nothing of their server.
fn not_broken(pass: &Pass) -> Vec<String> {
    let (asked, whole) = (pass.client("asked"), pass.client("whole"));
    let fine = asked > 0 && (asked - whole.min(asked)) * 3 >= asked;
    (!fine)
        .then(|| format!("{whole} of {asked} connections were whole although nothing brought them home"))
        .into_iter()
        .collect()
}

fn summary(report: &Report) -> String {
    let mut text = format!(
        "\nWeft, steering by {}: {} MPTCP connections over {} in each pass, 3 simulated servers behind {}\n\n",
        report.steering,
        report.connections,
        report.ip,
        report.forward.name(),
    );
    for pass in &report.passes {
        let _ = writeln!(text, "{}:", pass.what);
        pass.weft_is_told.lines().for_each(|line| text.push_str(&format!("    {}\n", hidden(line))));
        let strangers = pass.strangers() as u64;
        let after = pass.weft.counter("after_the_restart_by_timestamp");
        let rows = [
            ("client: MPTCP connections", pass.client("mptcp")),
            ("client: connections with all data there and back", pass.client("whole")),
            ("client: joins asked for", pass.client("joins")),
            ("client: joins that succeeded, both HMACs right", pass.client("joined")),
            ("client: joins refused or unanswered", pass.client("refused") + pass.client("lost")),
            ("servers: joins accepted", pass.servers("joined")),
            ("servers: joins of a connection that another server holds", strangers),
            ("servers: keys that Weft chose", pass.servers("given")),
            ("servers: timestamps that came back with the server's number", pass.servers("numbered")),
            ("servers: segments of no connection", pass.servers("stray")),
            ("Weft: joins", pass.weft.counter("join_syn")),
            ("Weft: joins whose token names no server", pass.weft.counter("token_map_miss")),
            ("Weft: joins whose token said where", pass.weft.rule("token_map")),
            ("Weft: SYNs that got a key", pass.weft.rule("chosen_key")),
            ("Weft: later packets that said where by their timestamp", pass.weft.rule("timestamp")),
            ("... of these, by a Weft that had seen no handshake", after),
            ("Weft: flow entries made", pass.weft.counter("flow_inserted")),
            ("Weft: joins sent by a learned token", pass.weft.joins_by_token),
            ("Weft: tokens learned", pass.weft.counter("token_learned")),
            ("Weft: tokens that stood in the handshake", pass.weft.counter("explicit_token")),
        ];
        for (what, figure) in rows {
            text.push_str(&format!("  {what:<60} {figure:>6}\n"));
        }
        for (own, server) in (1..).zip(&pass.servers) {
            let of = |name| number(server, &format!("/all_servers/{name}"));
            text.push_str(&format!("  s{own}: {} connections, {} joined\n", of("connections"), of("joined")));
        }
        pass.wrong.iter().for_each(|wrong| text.push_str(&format!("  FAIL {wrong}\n")));
        text.push('\n');
    }
    text.push_str(&format!("{:.0} s\n", report.seconds));
    text
}

/// A line without a key, as in any log.
fn hidden(line: &str) -> String {
    match line.split_once(" = ") {
        Some((name @ ("cipher_key_even" | "cipher_key_odd" | "key_secret"), _)) => format!("{name} = \"…\""),
        _ => line.to_owned(),
    }
}
