//! Agents and a real control plane over real TLS: who is believed, about what, and what the data plane is told.

#![cfg(test)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::tls::Files;
use ipc::id::BackendId;
use ipc::report::{Report, Subflow};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use support::{Dataplane, EXAMPLE, Place, wait_until};

const B1: BackendId = BackendId(1);
const B2: BackendId = BackendId(2);
const VIP: &str = "10.9.9.9:8000";
const CLIENT: &str = "10.0.2.1:40000";

/// An authority that vouches for names.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Files of somebody with these names, whose other end this authority vouches for, too.
    fn files(&self, dir: &Path, names: &[&str]) -> Files {
        let key = KeyPair::generate().unwrap();
        let params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let base = dir.join(format!("{}-{}", names.join("-"), rustix::process::getpid().as_raw_nonzero()));
        let files = Files {
            authority: base.with_extension("authority"),
            certificate: base.with_extension("certificate"),
            key: base.with_extension("key"),
        };
        std::fs::write(&files.authority, self.0.pem()).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// A control plane that listens to agents, with its data plane.
struct Scene {
    place: Place,
    authority: Authority,
    address: SocketAddr,
    dataplane: Dataplane,
    _ctrlplane: support::Ctrlplane,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn configuration(address: SocketAddr, files: Option<&Files>, more: &str) -> String {
    let steered = EXAMPLE.replace("steering = [\"learn\"]", "steering = [\"learn\", \"agent\"]");
    let files = files.map_or_else(String::new, |files| {
        format!(
            "authority = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
            files.authority.display(),
            files.certificate.display(),
            files.key.display()
        )
    });
    format!("{steered}\n[agents]\nlisten = \"{address}\"\n{files}{more}")
}

fn scene(more: &str) -> Scene {
    let (place, authority, address) = (Place::new(), Authority::new(), free_address());
    let files = authority.files(place.dir.path(), &["127.0.0.1"]);
    place.write(&configuration(address, Some(&files), more));
    let (dataplane, ctrlplane) = place.both();
    Scene { place, authority, address, dataplane, _ctrlplane: ctrlplane }
}

/// One agent's connection, line by line.
struct Agent<S>(BufReader<S>);

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn connect(files: &Files, address: SocketAddr) -> Agent<Tls> {
    let name = ServerName::from(address.ip());
    let session = ClientConnection::new(Arc::new(files.client().unwrap()), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    Agent(BufReader::new(StreamOwned::new(session, stream)))
}

impl<S: std::io::Read + Write> Agent<S> {
    fn say(&mut self, line: &str) {
        // One that is refused may find the connection closed already.
        let _refused = writeln!(self.0.get_mut(), "{line}");
        let _refused = self.0.get_mut().flush();
    }

    /// The next line; empty where the connection ended.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        let _ended = self.0.read_line(&mut line);
        line.trim_end().to_owned()
    }

    fn event(&mut self, kind: &str, token: &str) {
        self.say(&format!(
            r#"{{"event":{{"kind":"{kind}","token":"{token}","local":"{VIP}","remote":"{CLIENT}"}}}}"#
        ));
    }
}

impl Scene {
    /// An agent whose certificate has these names, after its hello.
    fn agent(&self, names: &[&str]) -> Agent<Tls> {
        let mut agent = connect(&self.authority.files(self.place.dir.path(), names), self.address);
        agent.say(r#"{"hello":{"version":1}}"#);
        agent
    }

    fn wait_for(&self, expected: &[(BackendId, Report)]) {
        wait_until(&format!("{expected:?} is reported, not {:?}", self.dataplane.reports()), || {
            self.dataplane.reports() == expected
        });
    }
}

fn lives(token: u32) -> Report {
    Report::TokenLives { token }
}

fn subflow() -> Subflow {
    Subflow::new(CLIENT.parse().unwrap(), VIP.parse().unwrap()).unwrap()
}

#[test]
fn what_an_agent_reports_reaches_the_data_plane_as_its_backends() {
    let scene = scene("");
    let mut agent = scene.agent(&["b2"]);
    assert_eq!(agent.hear(), r#"{"welcome":{"version":1,"backends":["b2"],"alive_seconds":10}}"#);
    agent.say(r#"{"dump":"begin"}"#);
    agent.event("created", "00000007");
    agent.event("created", "00000008");
    agent.say(r#"{"dump":"end"}"#);
    agent.event("sub_established", "00000007");
    agent.event("sub_closed", "00000007");
    agent.say(r#"{"event":{"kind":"closed","token":"00000007"}}"#);
    let joined = Report::SubflowLives { token: 7, subflow: subflow(), joined: true };
    let expected = [
        Report::DumpBegins,
        lives(7),
        lives(8),
        Report::DumpEnds,
        lives(7),
        joined,
        Report::SubflowEnded { subflow: subflow() },
        Report::TokenEnded { token: 7 },
    ];
    scene.wait_for(&expected.map(|report| (B2, report)));
    scene.dataplane.change(|held| assert!(held.leases.contains(&B2) && !held.leases.contains(&B1)));

    let shown = scene.place.json(&["agents"]);
    let row = |backend: usize| shown["agents"][backend].clone();
    assert_eq!((&row(0)["backend"], &row(0)["connected"]), (&"b1".into(), &false.into()));
    assert_eq!((&row(1)["backend"], &row(1)["connected"]), (&"b2".into(), &true.into()));
    assert_eq!((&row(1)["tokens"], &row(1)["dumps"]), (&1.into(), &1.into()));
    let said = scene.place.weftctl(&["doctor"]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("!!  agents: no agent on b1:"), "{said:?}");
}

#[test]
fn an_agent_that_is_gone_is_missed_only_while_it_is_expected() {
    let scene = scene("");
    let mut agent = scene.agent(&["b2"]);
    assert!(agent.hear().contains("welcome"));
    drop(agent);
    let shown = || -> Vec<String> {
        let rows = scene.place.json(&["agents"])["agents"].clone();
        rows.as_array().unwrap().iter().map(|row| row["backend"].as_str().unwrap().to_owned()).collect()
    };
    wait_until("the agent is gone", || {
        scene.place.json(&["agents"])["agents"][1]["connected"] == serde_json::Value::Bool(false)
    });
    assert_eq!(shown(), ["b1", "b2"]);
    let file = std::fs::read_to_string(scene.place.config()).unwrap();
    scene.place.write(&file.replace("\"b2\"", "\"b3\""));
    assert_eq!(scene.place.weftctl(&["reload"]).code, 0);
    assert_eq!(shown(), ["b1", "b3"]);
    let said = scene.place.weftctl(&["doctor"]);
    assert!(said.out.contains("!!  agents: no agent on b1, b3:"), "{said:?}");
}

#[test]
fn a_second_dump_takes_back_what_it_does_not_say() {
    let scene = scene("");
    let mut agent = scene.agent(&["b1"]);
    agent.event("created", "00000007");
    scene.wait_for(&[(B1, lives(7))]);
    drop(agent);
    let mut again = scene.agent(&["b1"]);
    again.say(r#"{"dump":"begin"}"#);
    again.event("created", "00000009");
    again.say(r#"{"dump":"end"}"#);
    let told = [lives(7), Report::DumpBegins, lives(9), Report::TokenEnded { token: 7 }, Report::DumpEnds];
    scene.wait_for(&told.map(|report| (B1, report)));
}

#[test]
fn what_a_replaced_connection_still_had_to_say_is_not_heard() {
    let scene = scene("reports_per_second = 100\n");
    let mut old = scene.agent(&["b1"]);
    assert!(old.hear().starts_with(r#"{"welcome""#));
    old.event("created", "00000007");
    scene.wait_for(&[(B1, lives(7))]);
    // Half a minute's worth, that waits for its turn.
    for token in 0x100..0x100 + 3000 {
        old.event("created", &format!("{token:08x}"));
    }
    let mut new = scene.agent(&["b1"]);
    assert!(new.hear().starts_with(r#"{"welcome""#));
    new.say(r#"{"dump":"begin"}"#);
    new.event("created", "00000009");
    new.say(r#"{"dump":"end"}"#);
    // It ends before the new one is welcome, and says why if that can be read.
    let last = old.hear();
    assert!(last.is_empty() || last.contains("another agent of this backend"), "{last}");
    assert_eq!(old.hear(), "");
    let all = || scene.dataplane.reports();
    wait_until("the dump has ended", || all().last() == Some(&(B1, Report::DumpEnds)));
    new.event("created", "0000000a");
    wait_until("it is heard", || all().last() == Some(&(B1, lives(10))));
    let reports = all();
    let begins = reports.iter().position(|(_, report)| *report == Report::DumpBegins).unwrap();
    let of_new = |report: &Report| match report {
        Report::TokenLives { token } => [9, 10].contains(token),
        _ => true,
    };
    assert!(reports[begins..].iter().all(|(_, report)| of_new(report)), "{:?}", &reports[begins..]);
    assert!(reports.len() < 1000, "{}: its backlog was heard", reports.len());
}

#[test]
fn what_an_agent_reports_is_told_however_much_else_it_says() {
    let scene = scene("reports_per_second = 100\n");
    let mut agent = scene.agent(&["b1"]);
    assert!(agent.hear().starts_with(r#"{"welcome""#));
    agent.event("created", "00000007");
    // At its rate this takes a minute and a half.
    for _ in 0..10_000 {
        agent.say(r#""alive""#);
    }
    scene.wait_for(&[(B1, lives(7))]);
}

#[test]
fn whoever_says_nothing_keeps_no_agent_out() {
    let scene = scene("");
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(scene.address).unwrap()).collect();
    let mut agent = scene.agent(&["b1"]);
    assert!(agent.hear().starts_with(r#"{"welcome""#));
    let mut first = &silent[0];
    assert_eq!(std::io::Read::read(&mut first, &mut [0]).unwrap(), 0, "the first of them had to go");
    assert_eq!(
        scene.place.log().matches("before they said who they are").count(),
        1,
        "{}",
        scene.place.log()
    );
}

#[test]
fn a_start_that_fails_has_told_the_data_plane_nothing_and_leaves_no_socket() {
    let (place, taken) = (Place::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = taken.local_addr().unwrap();
    let dataplane = Dataplane::start(&place.runtime_dir());
    let fails = |text: &str, why: &str| {
        place.write(text);
        let code = place.ctrlplane().child.wait().unwrap().code();
        assert!(code == Some(1) && place.log().contains(why), "{code:?}: {}", place.log());
        assert!(!place.socket().exists());
    };
    fails(&configuration(address, None, ""), "cannot listen for agents on");
    let files = Authority::new().files(place.dir.path(), &["127.0.0.1"]);
    let wrong = Files { certificate: place.dir.path().join("nothing.pem"), ..files };
    fails(&configuration(free_address(), Some(&wrong), ""), "nothing.pem");
    fails(&format!("{EXAMPLE}\n[metrics]\nlisten = \"{address}\"\n"), "cannot serve metrics on");
    assert_eq!(dataplane.generation(), 0);
}

#[test]
fn an_agent_is_asked_for_all_again_when_the_data_plane_begins_anew() {
    let mut scene = scene("");
    let mut agent = scene.agent(&["b1"]);
    assert!(agent.hear().starts_with(r#"{"welcome""#));
    drop(scene.dataplane.stop());
    scene.dataplane = Dataplane::start(&scene.place.runtime_dir());
    assert_eq!(agent.hear(), r#""dump_again""#);
    agent.event("created", "00000007");
    scene.wait_for(&[(B1, lives(7))]);
}

#[test]
fn an_agent_is_asked_for_all_again_when_what_it_should_report_changes_and_not_otherwise() {
    let scene = scene("");
    let mut agent = scene.agent(&["b1"]);
    assert!(agent.hear().starts_with(r#"{"welcome""#));
    let before = std::fs::read_to_string(scene.place.config()).unwrap();
    // The second change is nothing to it; the pool's other name is.
    let drained = scene.place.weftctl(&["backend", "drain", "b2"]);
    assert_eq!(drained.code, 0, "{drained:?}");
    scene.place.write(&before.replace("\"web-servers\"", "\"machines\""));
    assert_eq!(scene.place.weftctl(&["reload"]).code, 0);
    assert_eq!(agent.hear(), r#""dump_again""#);
    agent.event("created", "00000007");
    scene.wait_for(&[(B1, lives(7))]);
    agent.say(r#"{"event":{"kind":"nonsense"}}"#);
    assert_eq!(agent.hear(), "", "it was asked once");
}

#[test]
fn the_agent_of_a_removed_backend_is_believed_as_long_as_the_backend_serves() {
    let scene = scene("");
    let mut agent = scene.agent(&["b1"]);
    assert!(agent.hear().starts_with(r#"{"welcome""#));
    agent.event("created", "00000007");
    scene.wait_for(&[(B1, lives(7))]);
    let removed = scene.place.weftctl(&["backend", "remove", "b1"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    agent.say(r#"{"event":{"kind":"closed","token":"00000007"}}"#);
    // This data plane gives a removed backend another number.
    let is_last = |report| scene.dataplane.reports().last().is_some_and(|(_, last)| *last == report);
    wait_until("it is heard", || is_last(Report::TokenEnded { token: 7 }));
    let mut again = scene.agent(&["b1"]);
    assert!(again.hear().starts_with(r#"{"welcome""#), "one that comes back, too");
    again.event("created", "00000008");
    wait_until("it is heard", || is_last(lives(8)));
}

#[test]
fn whoever_has_no_certificate_of_the_authority_is_not_heard() {
    let scene = scene("");
    let stranger = Authority::new();
    let mut files = stranger.files(scene.place.dir.path(), &["b1"]);
    // It knows the control plane's authority, which is no secret, and shows a certificate of its own making.
    files.authority = scene.authority.files(scene.place.dir.path(), &["x"]).authority;
    let mut agent = connect(&files, scene.address);
    agent.say(r#"{"hello":{"version":1}}"#);
    agent.event("created", "00000007");
    assert_eq!(agent.hear(), "", "not even a word");
    let mut plain = Agent(BufReader::new(TcpStream::connect(scene.address).unwrap()));
    plain.say(r#"{"hello":{"version":1,"backend":"b1"}}"#);
    plain.event("created", "00000007");
    assert!(!plain.hear().contains("welcome"));
    assert_eq!(scene.dataplane.reports(), []);
}

#[test]
fn a_certificate_that_names_no_backend_is_refused_with_a_sentence() {
    let scene = scene("");
    let mut agent = scene.agent(&["db-7"]);
    let refused = agent.hear();
    assert!(refused.starts_with(r#"{"refused":"none of the names in the certificate (db-7)"#), "{refused}");
    assert_eq!(agent.hear(), "");
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let scene = scene("");
    let too_long = format!(r#"{{"hello":{{"version":1,"backend":"{}"}}}}"#, "x".repeat(5000));
    for nonsense in ["{}", "\u{0}\u{1}", r#"{"event":{"kind":"created","token":"7"}}"#, &too_long] {
        let mut agent = scene.agent(&["b1"]);
        assert!(agent.hear().starts_with(r#"{"welcome""#));
        agent.say(nonsense);
        assert_eq!(agent.hear(), "", "{nonsense}");
    }
    let mut agent = scene.agent(&["b1"]);
    agent.event("created", "00000007");
    scene.wait_for(&[(B1, lives(7))]);
}

#[test]
fn a_lying_agent_reports_so_many_connections_of_its_own_backend_and_no_more() {
    let scene = scene("tokens = 20\n");
    let mut liar = scene.agent(&["b1"]);
    for token in 0..500 {
        liar.event("created", &format!("{token:08x}"));
    }
    let mut honest = scene.agent(&["b2"]);
    honest.event("created", "0000ffff");
    wait_until("both are heard", || scene.dataplane.reports().contains(&(B2, lives(0xffff))));
    wait_until("the rest is refused", || scene.place.json(&["agents"])["agents"][0]["refused"] == 480);
    let of_liar = scene.dataplane.reports().into_iter().filter(|(backend, _)| *backend == B1).count();
    assert_eq!(of_liar, 20);
    assert_eq!(scene.place.json(&["agents"])["agents"][0]["tokens"], 20);
}

#[test]
fn on_loopback_an_agent_is_believed_without_a_certificate() {
    let (place, address) = (Place::new(), free_address());
    place.write(&configuration(address, None, ""));
    let (dataplane, _ctrlplane) = place.both();
    let mut agent = Agent(BufReader::new(TcpStream::connect(address).unwrap()));
    agent.say(r#"{"hello":{"version":1,"backend":"b2"}}"#);
    assert!(agent.hear().starts_with(r#"{"welcome""#));
    agent.event("created", "00000007");
    wait_until("it is heard", || dataplane.reports() == [(B2, lives(7))]);
    let mut future = Agent(BufReader::new(TcpStream::connect(address).unwrap()));
    future.say(r#"{"hello":{"version":2,"backend":"b2"}}"#);
    assert!(future.hear().contains("update the older of both"));
}

/// Makes certificates in the place's directory, by the script that operators use.
fn certificates(place: &Place, arguments: &[&str]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/certificates");
    let dir = place.dir.path().join("certificates");
    let said = std::process::Command::new(script).arg(&dir).args(arguments).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

/// The files of a name that the script made.
fn made(place: &Place, name: &str) -> Files {
    let file = |name: &str| place.dir.path().join("certificates").join(name);
    Files {
        authority: file("authority.pem"),
        certificate: file(&format!("{name}.pem")),
        key: file(&format!("{name}.key")),
    }
}

#[test]
fn a_revoked_certificate_ends_its_connection_and_lets_nobody_in_again() {
    let (place, address) = (Place::new(), free_address());
    certificates(&place, &["--control", "127.0.0.1", "--agent", "b1", "--agent", "b2"]);
    let list = place.dir.path().join("certificates/revoked.pem");
    let named = format!("revoked = \"{}\"\n", list.display());
    place.write(&configuration(address, Some(&made(&place, "127.0.0.1")), &named));
    let (dataplane, _ctrlplane) = place.both();
    let enter = |files: &Files| {
        let mut agent = connect(files, address);
        agent.say(r#"{"hello":{"version":1}}"#);
        agent
    };
    let welcome = |agent: &mut Agent<Tls>| assert!(agent.hear().starts_with(r#"{"welcome""#));
    let copy = |from: &Path, to: &str| {
        let to = from.with_extension(to);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let own = made(&place, "b1");
    let stolen =
        Files { certificate: copy(&own.certificate, "stolen.pem"), key: copy(&own.key, "stolen.key"), ..own };
    let (mut thief, mut other) = (enter(&stolen), enter(&made(&place, "b2")));
    welcome(&mut thief);
    welcome(&mut other);

    certificates(&place, &["--revoke", "b1", "--agent", "b1"]);
    // Until it is told, the control plane goes by the list it read.
    thief.event("created", "00000007");
    wait_until("the thief is heard", || dataplane.reports() == [(B1, lives(7))]);
    assert_eq!(place.weftctl(&["reload"]).code, 0);
    let refused = thief.hear();
    assert!(refused.starts_with(r#"{"refused":"its certificate is not accepted any more: "#), "{refused}");
    assert!(refused.contains("Revoked"), "{refused}");
    assert_eq!(thief.hear(), "");
    thief.event("created", "00000008");
    let mut again = enter(&stolen);
    again.event("created", "00000008");
    assert_eq!(again.hear(), "", "not even a word");

    let mut owner = enter(&made(&place, "b1"));
    welcome(&mut owner);
    owner.event("created", "00000009");
    wait_until("the owner is heard", || dataplane.reports().contains(&(B1, lives(9))));
    other.event("created", "0000000a");
    wait_until("who is not on the list goes on", || dataplane.reports().contains(&(B2, lives(10))));
    assert!(!dataplane.reports().contains(&(B1, lives(8))));

    // What is no list refuses the reload and changes nothing: neither the certificates nor the rest of the file.
    std::fs::write(&list, "no list").unwrap();
    let text = configuration(address, Some(&made(&place, "127.0.0.1")), &named);
    place.write(&text.replace("weight  = 100", "weight = 7"));
    let said = place.weftctl(&["reload"]);
    assert!(said.code == 1 && said.err.contains("holds no list of revoked certificates"), "{said:?}");
    assert!(place.weftctl(&["status"]).out.contains("the last reload changed nothing"));
    assert_eq!(place.json(&["backend", "list"])[0]["weight"], 100);
    assert_eq!(enter(&stolen).hear(), "");
    welcome(&mut enter(&made(&place, "b2")));
}

#[test]
fn without_certificates_a_list_of_revoked_ones_is_a_mistake() {
    let place = Place::new();
    place.write(&configuration(free_address(), None, "revoked = \"revoked.pem\"\n"));
    let said = place.weftctl(&["check", &place.config().display().to_string()]);
    assert!(
        said.code == 1 && said.err.contains("`revoked` without certificates; give `authority`"),
        "{said:?}"
    );
}
