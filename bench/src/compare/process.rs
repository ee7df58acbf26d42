//! Programs that a comparison starts: each ends with the value that holds it, and with this process, however that ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(2);
/// How long a program may take to end when it was asked to.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Set when this process was told to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(pub std::sync::Arc<AtomicBool>);

impl Stop {
    /// One that SIGINT and SIGTERM set.
    ///
    /// # Errors
    /// Signals cannot be caught.
    pub fn on_signals() -> anyhow::Result<Self> {
        let stop = Self::default();
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::flag::register(signal, std::sync::Arc::clone(&stop.0))
                .context("cannot catch signals")?;
        }
        Ok(stop)
    }

    /// Fails where this process was told to end.
    ///
    /// # Errors
    /// It was.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("stopped by a signal");
        }
        Ok(())
    }

    /// Looks until there is something.
    ///
    /// # Errors
    /// Time is over, or this process was told to end.
    pub fn patiently<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let since = Instant::now();
        loop {
            self.check()?;
            if let Some(found) = look()? {
                return Ok(found);
            }
            if since.elapsed() > patience {
                bail!("waited {patience:?} in vain: {what}");
            }
            sleep(LOOK);
        }
    }

    /// Sleeps, but not longer than this process may run.
    ///
    /// # Errors
    /// This process was told to end.
    pub fn pause(&self, span: Duration) -> anyhow::Result<()> {
        let since = Instant::now();
        while let Some(left) = span.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
            self.check()?;
            sleep(left.min(Duration::from_millis(100)));
        }
        self.check()
    }
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    last: VecDeque<String>,
    log: PathBuf,
    stop: Stop,
}

impl Program {
    /// Starts a program. Its standard output is read line by line, its standard error goes to a file.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, words: &[String], log: &Path, stop: &Stop) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // However this process ends, what it started ends with it: nothing may poll a core for ever.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(words)
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log).with_context(|| format!("cannot write {}", log.display()))?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the program has no standard output")?;
        let (sender, lines) = channel();
        std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        })?;
        let (log, stop) = (log.to_owned(), stop.clone());
        Ok(Self { name, child, input, lines, last: VecDeque::new(), log, stop })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let written = self.input.as_mut().map(|input| writeln!(input, "{line}").and_then(|()| input.flush()));
        match written {
            Some(Ok(())) => Ok(()),
            _ => bail!("{}", self.ended()),
        }
    }

    /// The next line for which `wanted` gives something.
    ///
    /// # Errors
    /// It does not come in time, the program has ended, or this process was told to end.
    pub fn hear<T>(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + patience;
        loop {
            self.stop.check()?;
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.last.push_back(line);
                    if self.last.len() > 8 {
                        self.last.pop_front();
                    }
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not answer within {patience:?}; {}", self.name, self.said())
                }
                Err(RecvTimeoutError::Disconnected) => bail!("{}", self.ended()),
            }
        }
    }

    /// Fails where it has ended.
    ///
    /// # Errors
    /// It has; says what it said.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => bail!("{}", self.ended()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.check()?;
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not end, or not in order.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        // Programs with a prompt end with their input.
        self.input = None;
        let ended = self.stop.clone().patiently("its end", LAST_WORDS, || Ok(self.child.try_wait()?))?;
        if !ended.success() {
            bail!("{} ended with {ended}; {}", self.name, self.said());
        }
        Ok(())
    }

    fn ended(&mut self) -> String {
        let status = self.child.try_wait().ok().flatten();
        let how = status.map(|status| format!(" ({status})")).unwrap_or_default();
        format!("{} has ended{how}; {}", self.name, self.said())
    }

    /// Its last words.
    fn said(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let of_log = log.lines().rev().take(8).collect::<Vec<_>>().into_iter().rev().map(str::to_owned);
        let lines: Vec<String> = of_log.chain(self.last.iter().cloned()).collect();
        if lines.is_empty() {
            "it said nothing".to_owned()
        } else {
            format!("it said:\n{}", lines.join("\n"))
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        // One that was halted hears nothing until it goes on.
        let _ = kill_process(pid, Signal::TERM);
        let _ = kill_process(pid, Signal::CONT);
        self.input = None;
        let since = Instant::now();
        while since.elapsed() < LAST_WORDS {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A thread of a process, and the time it has had on a CPU.
#[derive(Clone, Debug)]
pub struct Thread {
    folder: PathBuf,
}

impl Thread {
    /// The threads of a process whose names `wanted` accepts, in the order of their numbers.
    pub fn of(pid: u32, wanted: impl Fn(u32, &str) -> bool) -> Vec<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        let mut threads: Vec<(u32, PathBuf)> = tasks
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| {
                let number = task.file_name().to_str()?.parse().ok()?;
                let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
                wanted(number, name.trim()).then(|| (number, task.path()))
            })
            .collect();
        threads.sort();
        threads.into_iter().map(|(_, folder)| Self { folder }).collect()
    }

    /// Nanoseconds for which it has run.
    ///
    /// # Errors
    /// It has ended, or this kernel does not say (CONFIG_SCHED_INFO).
    pub fn run_ns(&self) -> anyhow::Result<u64> {
        let path = self.folder.join("schedstat");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
        first.with_context(|| format!("{} does not say how long the thread ran", path.display()))
    }

    /// Whether it is halted by a signal.
    pub fn is_halted(&self) -> bool {
        let stat = std::fs::read_to_string(self.folder.join("stat")).unwrap_or_default();
        // The name may hold anything; the state follows its closing parenthesis.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }
}

/// A program on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
