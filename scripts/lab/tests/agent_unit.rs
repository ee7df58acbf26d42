//! The systemd unit of weft-agent, run by systemd: a systemd of its own as the first process of a PID namespace, with the
//! unit as it ships and no other, and a weft-ctrlplane beside it that listens with mutual TLS. What is held is what an
//! operator relies on: the agent gets its credentials and no more than one capability, reports, and comes back when it dies.
//! Needs root, systemd and cgroup version 2 (mounted or not); nothing of the machine's own systemd is touched.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use weft_lab::stand::Machine;

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ctrlplane/agent/weft-agent.service");
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../certificates");
const EXAMPLE: &str = include_str!("../../../docs/weft.example.toml");

/// A cgroup for all of it, removed at the end; then [`INNER`] as the first process of its namespaces.
const OUTER: &str = r#"
mount --make-rprivate / && mount -t cgroup2 none /mnt && mkdir "/mnt/$1" || exit 1
trap 'find "/mnt/$1" -depth -type d -exec rmdir {} +' EXIT
(echo 0 > "/mnt/$1/cgroup.procs" &&
    exec unshare --pid --fork --kill-child --mount --net --uts --ipc --cgroup sh -c "$2" sh "$3" "$4")
"#;

/// `/usr/bin`, `/etc` and `/run` of its own, with the agent and its files where its unit says.
const INNER: &str = r#"
set -e
mount --make-rshared /
umount /mnt
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /mnt
for place in usr/bin etc; do
    mkdir -p "/mnt/$place/upper" "/mnt/$place/work"
    mount -t overlay -o "lowerdir=/$place,upperdir=/mnt/$place/upper,workdir=/mnt/$place/work" overlay "/$place"
done
ip link set lo up
cp "$2/weft-agent" /usr/bin/
mkdir -p /etc/weft /run/weft
cp "$1/weft/authority.pem" /etc/weft/
(umask 077; cp "$1/weft/b1.pem" /etc/weft/certificate.pem; cp "$1/weft/b1.key" /etc/weft/key.pem)
echo 'CONTROL_PLANES="--connect 127.0.0.1"' > /etc/weft/agent.env
setsid "$2/weft-ctrlplane" run --config "$1/weft.toml" 2> "$1/ctrlplane.log" &
exec env -i container=weft PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH="$1/units" \
    /usr/lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=no < /dev/null
"#;

/// A systemd with the unit; ends with everything in it when dropped.
struct Booted {
    outer: Child,
    /// The first process of the namespaces, by its number outside.
    first: String,
    dir: PathBuf,
    programs: PathBuf,
}

fn children(pid: &str) -> Vec<String> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(str::to_owned).collect()
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Booted {
    fn start(dir: PathBuf, programs: PathBuf) -> Self {
        let units = dir.join("units");
        fs::create_dir_all(&units).unwrap();
        fs::copy(UNIT, units.join("weft-agent.service")).unwrap();
        for target in ["sysinit", "basic", "shutdown", "network-online"] {
            fs::write(units.join(format!("{target}.target")), "[Unit]\nDefaultDependencies=no\n").unwrap();
        }
        fs::write(units.join("test.target"), "[Unit]\nWants=weft-agent.service\n").unwrap();
        let made = dir.join("weft");
        let said = Command::new(CERTIFICATES)
            .arg(&made)
            .args(["--control", "127.0.0.1", "--agent", "b1"])
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
        let file = |name: &str| made.join(name).display().to_string();
        let agents = format!(
            "\n[agents]\nlisten = \"127.0.0.1:7443\"\nauthority = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
             revoked = \"{}\"\n",
            file("authority.pem"),
            file("127.0.0.1.pem"),
            file("127.0.0.1.key"),
            file("revoked.pem"),
        );
        let text = EXAMPLE.replace("steering = [\"learn\"]", "steering = [\"learn\", \"agent\"]") + &agents;
        fs::write(dir.join("weft.toml"), text).unwrap();
        let group = format!("weft-unit-{}", std::process::id());
        let outer = Command::new("unshare")
            .args(["--mount", "sh", "-c", OUTER, "sh", &group, INNER])
            .args([&dir, &programs])
            .stdin(Stdio::null())
            .stdout(fs::File::create(dir.join("systemd.log")).unwrap())
            .stderr(fs::File::create(dir.join("stage.log")).unwrap())
            .spawn()
            .unwrap();
        let pid = outer.id().to_string();
        let first = wait_for("systemd to begin", || {
            let unshare = children(&pid).into_iter().next()?;
            let first = children(&unshare).into_iter().next()?;
            let command = fs::read_to_string(format!("/proc/{first}/comm")).ok()?;
            (command.trim() == "systemd").then_some(first)
        });
        Self { outer, first, dir, programs }
    }

    fn enter(&self, command: &[&str]) -> Output {
        let namespaces = ["-t", &self.first, "-m", "-p", "-n", "--"];
        Command::new("nsenter").args(namespaces).args(command).output().unwrap()
    }

    fn property(&self, name: &str) -> String {
        let said = self.enter(&["systemctl", "show", "-P", name, "weft-agent.service"]);
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// What weftctl says about agents.
    fn agents(&self) -> serde_json::Value {
        let weftctl = self.programs.join("weftctl").display().to_string();
        let config = self.dir.join("weft.toml").display().to_string();
        let said = self.enter(&[&weftctl, "--json", "--config", &config, "agents"]);
        serde_json::from_slice(&said.stdout).unwrap_or_default()
    }

    /// How often b1's agent told all there is, once it is connected for at least the `times`th time.
    fn wait_for_dump(&self, times: u64) {
        wait_for("the agent to report", || {
            let agents = self.agents();
            let row = agents["agents"].as_array()?.iter().find(|row| row["backend"] == "b1")?.clone();
            (row["connected"] == true && row["dumps"].as_u64()? >= times).then_some(())
        });
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // The end of the first process is the end of all in its namespaces; the rest then tidies up by itself.
        let _ended = Command::new("kill").args(["-KILL", &self.first]).status();
        let _reaped = self.outer.wait();
    }
}

#[test]
fn the_unit_of_the_agent_starts_reports_with_one_capability_and_comes_back() {
    let test = "the systemd unit of weft-agent";
    let Some(machine) = Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
    else {
        return;
    };
    if !Path::new(SYSTEMD).exists() {
        skip::skip(test, "there is no systemd here");
        return;
    }
    let programs = machine.binaries.dataplane.parent().unwrap().to_owned();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unit-{}", std::process::id()));
    let booted = Booted::start(dir.clone(), programs);
    booted.wait_for_dump(1);

    let pid = booted.property("MainPID");
    let status = booted.enter(&["cat", &format!("/proc/{pid}/status")]);
    let status = String::from_utf8(status.stdout).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("Name:"), "weft-agent");
    let user: u32 = field("Uid:").parse().unwrap();
    assert!((61_184..=65_519).contains(&user), "a user made for it: {user}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000001000", "{set} CAP_NET_ADMIN and no other");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(booted.property("MemoryMax"), (64 << 20).to_string());

    assert!(booted.enter(&["systemctl", "kill", "-s", "KILL", "weft-agent.service"]).status.success());
    booted.wait_for_dump(2);
    assert_eq!(booted.property("NRestarts"), "1");
    drop(booted);
    fs::remove_dir_all(dir).unwrap();
}
