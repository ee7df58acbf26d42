//! What `weftctl` does with its command line.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use config::{Config, Problem};
use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::{AddArgs, BackendCommand, BackendName, VipCommand, WeftctlCli, WeftctlCommand};
use crate::client::{self, ClientError, RUNTIME_DIR, SOCKET};
use crate::view::*;
use crate::wait::{self, End, Goal, Waiting};
use crate::{commands, print};

/// Refused, or the checked file has problems.
const REFUSED: u8 = 1;
/// Bad command line, as clap has it.
const USAGE: u8 = 2;
/// weft-ctrlplane is not running, or does not answer.
const NO_CONTROL_PLANE: u8 = 3;
/// weft-ctrlplane runs, weft-dataplane does not.
const NO_DATA_PLANE: u8 = 4;
/// The deadline came first.
const DEADLINE: u8 = 5;

/// Why a command did not do what it was told.
enum Failed {
    Client(ClientError),
    Problems(Vec<Problem>),
    Usage(String),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Does what the command line says. Prints; the code is the process's.
pub async fn main(cli: WeftctlCli) -> ExitCode {
    match dispatch(&cli).await {
        Ok(code) => code,
        Err(failed) => fail(&failed, cli.json),
    }
}

fn fail(failed: &Failed, json: bool) -> ExitCode {
    let (code, sentence) = match failed {
        Failed::Client(error) => {
            let code = match error {
                ClientError::NotRunning { .. } | ClientError::Silent { .. } => NO_CONTROL_PLANE,
                ClientError::NoDataplane(_) => NO_DATA_PLANE,
                _ => REFUSED,
            };
            (code, error.to_string())
        }
        Failed::Problems(problems) => {
            (REFUSED, problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        Failed::Usage(sentence) => (USAGE, sentence.clone()),
    };
    if json {
        say(&format!("{}\n", json!({ "error": sentence })));
    } else {
        eprintln!("{sentence}");
    }
    ExitCode::from(code)
}

async fn dispatch(cli: &WeftctlCli) -> Result<ExitCode, Failed> {
    if let WeftctlCommand::Check { file } = &cli.command {
        return Ok(check(file, cli.json));
    }
    let ctl = Ctl { socket: socket(cli)?, json: cli.json };
    match &cli.command {
        WeftctlCommand::Check { .. } => {}
        WeftctlCommand::Status => return ctl.status().await,
        WeftctlCommand::Vip(VipCommand::List) => {
            ctl.show("/v1/vips", |rows: Vec<VipRow>| print::vips(&rows)).await?
        }
        WeftctlCommand::Backend(command) => return ctl.backend(command).await,
        WeftctlCommand::Tokens { token: None } => {
            ctl.show("/v1/tokens", |summary: TokenSummary| print::tokens(&summary)).await?;
        }
        WeftctlCommand::Tokens { token: Some(token) } => {
            crate::api::parse_token(token).map_err(Failed::Usage)?;
            let path = format!("/v1/tokens/{token}");
            ctl.show(&path, |rows: Vec<TokenOwner>| print::owners(token, &rows)).await?;
        }
        WeftctlCommand::Agents => {
            ctl.show("/v1/agents", |summary: AgentSummary| print::agents(&summary)).await?;
        }
        WeftctlCommand::Doctor => return ctl.doctor().await,
        WeftctlCommand::Steering => {
            ctl.show("/v1/steering", |rows: Vec<RuleRow>| print::rules(&rows)).await?;
        }
        WeftctlCommand::Drops => ctl.show("/v1/drops", |rows: Vec<DropRow>| print::drops(&rows)).await?,
        WeftctlCommand::Reload => ctl.change("/v1/reload", &json!({})).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn socket(cli: &WeftctlCli) -> Result<PathBuf, Failed> {
    if let Some(socket) = &cli.socket {
        return Ok(client::socket_at(socket));
    }
    match &cli.config {
        Some(file) => {
            // Who may talk to the control plane need not be one who may read its secrets.
            let config = Config::load_without_secrets(file).map_err(Failed::Problems)?;
            Ok(config.dataplane.runtime_dir.join(SOCKET))
        }
        None => Ok(Path::new(RUNTIME_DIR).join(SOCKET)),
    }
}

/// `NAME`, or `POOL NAME`.
fn pool_and_name(names: &[String]) -> Result<(Option<String>, String), Failed> {
    match names {
        [name] => Ok((None, name.clone())),
        [pool, name] => Ok((Some(pool.clone()), name.clone())),
        _ => Err(Failed::Usage("give the backend's name, and before it its pool if need be".to_owned())),
    }
}

/// The same, where `--pool` may say the pool.
fn named(backend: &BackendName) -> Result<(Option<String>, String), Failed> {
    match (&backend.names[..], &backend.pool) {
        ([name], Some(pool)) => Ok((Some(pool.clone()), name.clone())),
        (_, Some(_)) => Err(Failed::Usage("give the pool once, before the name or by --pool".to_owned())),
        (names, None) => pool_and_name(names),
    }
}

/// Where to ask, and how to print.
pub(crate) struct Ctl {
    pub socket: PathBuf,
    pub json: bool,
}

impl Ctl {
    async fn backend(&self, command: &BackendCommand) -> Result<ExitCode, Failed> {
        match command {
            BackendCommand::List => {
                self.show("/v1/backends", |rows: Vec<BackendRow>| print::backends(&rows)).await?;
            }
            BackendCommand::Add(args) => self.add(args).await?,
            BackendCommand::Drain { backend, wait, deadline } => {
                let (pool, name) = named(backend)?;
                let body = NamedBackend { pool, name };
                let changed = self.post("/v1/backends/drain", &body).await?;
                if !wait && deadline.is_none() {
                    self.say_changed(&changed);
                } else {
                    return self.wait(Goal::Drained, body.name, changed, *deadline).await;
                }
            }
            BackendCommand::Undrain { backend } => {
                let (pool, name) = named(backend)?;
                self.change("/v1/backends/undrain", &NamedBackend { pool, name }).await?;
            }
            BackendCommand::Remove { backend, deadline, now, wait } => {
                let (pool, name) = named(backend)?;
                let span = if *now { Some(Duration::ZERO) } else { *deadline };
                let deadline_seconds = span.map(|span| u32::try_from(span.as_secs()).unwrap_or(u32::MAX));
                let body = RemoveBackend { pool, name, deadline_seconds };
                let changed = self.post("/v1/backends/remove", &body).await?;
                if *wait {
                    return self.wait(Goal::Gone, body.name, changed, None).await;
                }
                self.say_changed(&changed);
            }
            BackendCommand::Commands { backend } => self.commands(backend).await?,
            BackendCommand::Weight { names } => self.weight(names).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Waits for what a change brings about.
    async fn wait(
        &self,
        goal: Goal,
        name: String,
        changed: Changed,
        deadline: Option<Duration>,
    ) -> Result<ExitCode, Failed> {
        if !changed.applied {
            return Err(Failed::Client(ClientError::NoDataplane(changed.message)));
        }
        let pool = changed.pool.clone().unwrap_or_default();
        let waiting = Waiting { goal, pool, name, deadline };
        Ok(ExitCode::from(match wait::wait(self, &waiting, &changed).await? {
            End::Reached => 0,
            End::Deadline => DEADLINE,
            End::Changed => REFUSED,
        }))
    }

    async fn status(&self) -> Result<ExitCode, Failed> {
        let value = client::request(&self.socket, Method::GET, "/v1/status", None::<&()>).await?;
        let status: Status = decode(value.clone())?;
        if self.json {
            print_json(&value)
        } else {
            say(&print::status(&status))
        }
        Ok(if status.dataplane.attached { ExitCode::SUCCESS } else { ExitCode::from(NO_DATA_PLANE) })
    }

    async fn doctor(&self) -> Result<ExitCode, Failed> {
        let value = client::request(&self.socket, Method::GET, "/v1/doctor", None::<&()>).await?;
        let findings: Vec<Finding> = decode(value.clone())?;
        if self.json {
            print_json(&value)
        } else {
            say(&print::findings(&findings))
        }
        let is_well = !findings.iter().any(|finding| finding.is_problem);
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
    }

    async fn show<T: DeserializeOwned>(
        &self,
        path: &str,
        print: impl FnOnce(T) -> String,
    ) -> Result<(), Failed> {
        let value = client::request(&self.socket, Method::GET, path, None::<&()>).await?;
        if self.json {
            print_json(&value);
        } else {
            say(&print(decode(value)?));
        }
        Ok(())
    }

    /// Asks for a value.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        decode(client::request(&self.socket, Method::GET, path, None::<&()>).await?)
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Changed, Failed> {
        Ok(decode(client::request(&self.socket, Method::POST, path, Some(body)).await?)?)
    }

    async fn change(&self, path: &str, body: &impl Serialize) -> Result<(), Failed> {
        let changed = self.post(path, body).await?;
        self.say_changed(&changed);
        Ok(())
    }

    fn say_changed(&self, changed: &Changed) {
        if self.json {
            print_json(&json!(changed));
        } else {
            say(&format!("{}\n", changed.message));
        }
    }

    async fn add(&self, args: &AddArgs) -> Result<(), Failed> {
        let (pool, name) = pool_and_name(&args.names)?;
        let body = AddBackend {
            pool,
            name,
            address: args.address.clone(),
            mac: args.mac.clone(),
            weight: Some(args.weight),
            number: args.number,
            endpoint_port: args.endpoint_port,
            endpoint_address: args.endpoint_address.clone(),
        };
        self.change("/v1/backends", &body).await
    }

    /// What a backend's server is to be told, from what Weft goes by now.
    async fn commands(&self, backend: &BackendName) -> Result<(), Failed> {
        let (pool, name) = named(backend)?;
        let (vips, backends): (Vec<VipRow>, Vec<BackendRow>) =
            (self.get("/v1/vips").await?, self.get("/v1/backends").await?);
        let commands = commands::commands(&vips, &backends, pool.as_deref(), &name)
            .map_err(|sentence| Failed::Client(ClientError::Refused(sentence)))?;
        if self.json {
            print_json(&json!(commands));
        } else {
            say(&commands.text());
        }
        Ok(())
    }

    async fn weight(&self, names: &[String]) -> Result<(), Failed> {
        let usage =
            || Failed::Usage("give the backend's name and its weight, a number from 0 to 1000".to_owned());
        let (weight, names) = names.split_last().ok_or_else(usage)?;
        let weight = weight.parse().map_err(|_| usage())?;
        let (pool, name) = pool_and_name(names)?;
        self.change("/v1/backends/weight", &WeighBackend { pool, name, weight }).await
    }
}

fn decode<T: DeserializeOwned>(value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|error| ClientError::Unexpected(error.to_string()))
}

/// Writes to standard output. A reader that went away (`weftctl ... | head`) has what it wanted; anything else, a
/// full disk for example, is one sentence and exit code 1.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) else { return };
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("weftctl: cannot write to standard output: {error}");
    std::process::exit(i32::from(REFUSED));
}

fn print_json(value: &Value) {
    say(&format!("{value:#}\n"));
}

/// `weftctl check`: needs no daemon.
fn check(file: &Path, json: bool) -> ExitCode {
    let result = Config::load(file);
    let problems = result.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    let exposure = result.as_ref().ok().and_then(|config| config.exposure(file));
    if json {
        let listed: Vec<Value> = problems
            .iter()
            .map(|problem| {
                json!({
                    "file": problem.file,
                    "line": problem.line,
                    "column": problem.column,
                    "message": problem.message,
                })
            })
            .collect();
        print_json(&json!({ "valid": result.is_ok(), "problems": listed, "warning": exposure }));
    } else if let Ok(config) = &result {
        let backends: usize = config.pools.iter().map(|pool| pool.backends.len()).sum();
        say(&format!(
            "{}: valid, {} VIPs, {} pools, {backends} backends\n",
            file.display(),
            config.vips.len(),
            config.pools.len()
        ));
        exposure.iter().for_each(|sentence| eprintln!("warning: {sentence}"));
    } else {
        problems.iter().for_each(|problem| eprintln!("{problem}"));
    }
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) }
}
