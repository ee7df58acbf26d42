//! HTTP over the control plane's socket, from `weftctl`'s side.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

use crate::view::Failure;

/// Name of the socket, in the runtime directory.
pub const SOCKET: &str = "ctrlplane.sock";

/// Where the runtime directory is if nothing says otherwise.
pub const RUNTIME_DIR: &str = "/run/weft";

/// How long an answer is waited for. A change of thousands of backends takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "weft-ctrlplane is not running, or serves another socket than {path}: start it, or give --socket or --config",
        path = path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Somebody listens and says nothing.
    #[error("weft-ctrlplane has not answered on {path} for {seconds} s: is it stopped or stuck? Look at its log", path = path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The socket is not for this user.
    #[error("{path}: {source}; run as the user of weft-ctrlplane", path = path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What came back is no HTTP.
    #[error("weft-ctrlplane broke the connection off ({0}): look at its log")]
    Broken(#[from] hyper::Error),
    /// What came back is no JSON of ours.
    #[error(
        "weft-ctrlplane answered something else than this weftctl expects ({0}): install the same version of both"
    )]
    Unexpected(String),
    /// There is no data plane.
    #[error("{0}")]
    NoDataplane(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// The socket that `--socket` means: a directory is the runtime directory.
pub fn socket_at(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(SOCKET) } else { path.to_owned() }
}

/// Sends one request and returns the JSON of a good answer.
pub async fn request(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<serde_json::Value, ClientError> {
    within(socket, PATIENCE, exchange(socket, method, path, body)).await
}

/// What an exchange brings, if it brings it in time.
pub async fn within<T>(
    socket: &Path,
    span: Duration,
    exchange: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let silent = |_| ClientError::Silent { path: socket.to_owned(), seconds: span.as_secs() };
    tokio::time::timeout(span, exchange).await.map_err(silent)?
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<serde_json::Value, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { path: socket.to_owned() }
        }
        _ => ClientError::Socket { path: socket.to_owned(), source },
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let unexpected = |error: &dyn std::error::Error| ClientError::Unexpected(error.to_string());
    let body =
        body.map(serde_json::to_vec).transpose().map_err(|error| unexpected(&error))?.unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "weft")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unexpected(&error))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let bytes = answer.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&bytes).map_err(|error| unexpected(&error));
    }
    let failure: Failure = serde_json::from_slice(&bytes).map_err(|error| unexpected(&error))?;
    Err(match status {
        StatusCode::SERVICE_UNAVAILABLE => ClientError::NoDataplane(failure.error),
        _ => ClientError::Refused(failure.error),
    })
}
