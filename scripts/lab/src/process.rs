//! Child processes: tools that run to their end, and tasks that live as long as the lab.
//!
//! Every child has a process group of its own, so that Ctrl-C reaches only the lab, which then ends them one by
//! one, by pid. A task dies with the lab even when the lab is killed: see [`Task::start`].

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result, interrupt};

/// How long a task may take to end after SIGTERM before SIGKILL follows.
const GRACE: Duration = Duration::from_secs(4);

/// Runs a program to its end and returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// Runs a program to its end with `input` as its standard input, and returns its standard output.
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let line = line_of(command);
    let failed = |e: std::io::Error| Error::Tool { command: line.clone(), reason: e.to_string() };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading its input has its own error to report.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // Some programs put their complaint on stdout.
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let reason = format!("{}: {}", output.status, String::from_utf8_lossy(said).trim());
    Err(Error::Tool { command: line, reason })
}

/// The command as a person would type it.
fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A child that runs until it is stopped. Dropping it stops it.
#[derive(Debug)]
pub struct Task {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
}

impl Task {
    /// Starts `command`. Its stderr goes to `log`, its stdout to [`Task::next_line`].
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let failed = |e| Error::io(format!("cannot start {name}"), e);
        let stderr = File::options().create(true).append(true).open(log).map_err(failed)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            // Ends with the child's stdout.
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), lines })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its stdout; an error when it ends first or takes longer than `limit`.
    pub fn next_line(&mut self, limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            interrupt::check()?;
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.child.wait();
                    return Err(Error::other(format!("{} ended early{}", self.name, self.last_words())));
                }
                Err(RecvTimeoutError::Timeout) if start.elapsed() > limit => {
                    return Err(Error::Timeout {
                        what: format!("{} said nothing", self.name),
                        seconds: limit.as_secs(),
                        detail: self.last_words(),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Writes a line to its stdin.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let failed = |e| Error::io(format!("{} does not listen", self.name), e);
        let stdin = self.child.stdin.as_mut().ok_or(Error::other("its stdin is closed"))?;
        writeln!(stdin, "{line}").map_err(failed)
    }

    /// Takes the task's stdin; dropping it tells the task to finish.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// An error when the task has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(Error::other(format!("{} ended: {status}{}", self.name, self.last_words())))
            }
            Err(e) => Err(Error::io(format!("cannot ask for {}", self.name), e)),
        }
    }

    /// Waits for its end by itself; its exit code, or none when a signal ended it.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<i32>> {
        let name = self.name.clone();
        let ended = || -> Result<Option<Option<i32>>> {
            let status = self.child.try_wait();
            Ok(status
                .map_err(|e| Error::io(format!("cannot ask for {name}"), e))?
                .map(|status| status.code()))
        };
        let ended = interrupt::poll(limit, Duration::from_millis(50), ended)?;
        ended.ok_or(Error::Timeout {
            what: format!("{} did not end", self.name),
            seconds: limit.as_secs(),
            detail: self.last_words(),
        })
    }

    /// The last lines of the log, ready to follow a sentence.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(8)..];
        if tail.is_empty() { String::new() } else { format!("; its last lines:\n  {}", tail.join("\n  ")) }
    }

    /// SIGTERM, then SIGKILL when it does not end in time. Says whether SIGTERM was enough.
    pub fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        false
    }

    /// SIGKILL at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        // `try_wait` first: a pid that was reaped may belong to somebody else by now.
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, signal);
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}
