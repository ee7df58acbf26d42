//! `weft-ctrlplane run`: starts, serves, reloads, stops.
//!
//! Order of the start: what can fail for good fails before anything is visible. The file is read, the role's
//! lock taken (a second instance ends here), the run-time changes read, certificates read and ports opened; only
//! then the socket appears and the data plane is told. A data plane that is not there yet is no failure.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use config::Config;
use ipc::liveness::{Lock, Role};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::agents::{self, Agents};
use crate::client::SOCKET;
use crate::control::Control;
use crate::session::Session;
use crate::{api, neighbour};

/// How long requests under way may take once the process is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT. The error is for people.
pub async fn run(path: &Path, api_socket: Option<PathBuf>) -> anyhow::Result<()> {
    let file = Config::load(path).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!(problems.join("\n"))
    })?;
    // Signals from here on are ours: a SIGHUP during the start must not end the process.
    let mut signals = Signals::new().context("signals cannot be received")?;
    let runtime_dir = file.dataplane.runtime_dir.clone();
    let (agents, metrics) = (file.agents.clone(), file.metrics);
    let lock = Arc::new(Lock::acquire(&runtime_dir, Role::ControlPlane)?);
    let (control, notes) = Control::new(path, file)?;
    notes.iter().for_each(|note| log::warn!("{note}"));
    let control = Arc::new(control);
    let port = match agents {
        Some(settings) => Some(agents::Port::open(settings).await?),
        None => None,
    };
    let metrics = match metrics {
        Some(settings) => Some(open_metrics(settings).await?),
        None => None,
    };
    let socket = api_socket.unwrap_or_else(|| runtime_dir.join(SOCKET));
    let listener = listen(&socket).with_context(|| {
        format!(
            "cannot serve weftctl on {}: check that this user may write there, or give --api",
            socket.display()
        )
    })?;
    let (session, thread) =
        Session::start(lock, control.clone()).context("the thread of the link cannot be started")?;
    let (agents, listening) = port.map(|port| Agents::start(port, control.clone(), session.clone())).unzip();
    let api = api::Api::new(control.clone(), session.clone(), agents);
    let metrics = metrics.map(|listener| serve_metrics(listener, api.clone()));
    log::info!("weft-ctrlplane runs by {}, serving weftctl on {}", path.display(), socket.display());

    let neighbours = tokio::spawn(neighbour::watch(control.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, api::router(api.clone())).with_graceful_shutdown(async {
        // Told to stop, or the other end is gone: either way it is over.
        let _told = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    while let Some(reload) = signals.next().await {
        if !reload {
            break;
        }
        say(api.reload().await);
    }
    log::info!("weft-ctrlplane stops; weft-dataplane goes on as it is");
    drop(stop);
    neighbours.abort();
    listening.iter().chain(&metrics).for_each(JoinHandle::abort);
    if tokio::time::timeout(GRACE, server).await.is_err() {
        log::warn!("requests under way are dropped");
    }
    session.stop();
    // The lock is released when the thread ends: whoever starts next must not find it held.
    if tokio::task::spawn_blocking(|| thread.join()).await.is_err() {
        log::warn!("the thread of the link did not end");
    }
    if let Err(error) = std::fs::remove_file(&socket) {
        log::debug!("{} is gone already: {error}", socket.display());
    }
    Ok(())
}

/// Opens the port for metrics.
async fn open_metrics(settings: config::Metrics) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot serve metrics on {}; see `listen` in [metrics]", settings.listen))?;
    log::info!("serving metrics on http://{}/metrics", listener.local_addr()?);
    Ok(listener)
}

/// Serves what is counted to whoever may connect.
fn serve_metrics(listener: TcpListener, api: Arc<api::Api>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, api::metrics_router(api)).await {
            log::error!("metrics are served no more: {error}");
        }
    })
}

fn say(reloaded: Result<Vec<String>, Vec<config::Problem>>) {
    match reloaded {
        Ok(notes) => {
            log::info!("configuration reloaded");
            notes.iter().for_each(|note| log::warn!("{note}"));
        }
        Err(problems) => {
            problems.iter().for_each(|problem| log::error!("{problem}"));
            log::error!("the configuration was not reloaded; nothing changed");
        }
    }
}

/// SIGHUP reloads, SIGTERM and SIGINT end.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// True to reload, false to end.
    async fn next(&mut self) -> Option<bool> {
        tokio::select! {
            signal = self.hangup.recv() => signal.map(|()| true),
            signal = self.terminate.recv() => signal.map(|()| false),
            signal = self.interrupt.recv() => signal.map(|()| false),
        }
    }
}

/// Binds beside the place and renames: the socket is never there with the wrong mode, and one that a killed
/// predecessor left is replaced. Only the holder of the role's lock comes here.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    let beside = socket.with_extension("sock.new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, socket)?;
    Ok(listener)
}
