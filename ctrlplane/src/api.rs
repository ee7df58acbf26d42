//! HTTP with JSON over a Unix socket: what `weftctl` talks to.
//!
//! | request                     | body              | answer              |
//! | --------------------------- | ----------------- | ------------------- |
//! | `GET /v1/status`            |                   | [`Status`]          |
//! | `GET /v1/vips`              |                   | list of [`VipRow`]  |
//! | `GET /v1/backends`          |                   | list of [`BackendRow`] |
//! | `GET /v1/tokens`            |                   | [`TokenSummary`]    |
//! | `GET /v1/tokens/{token}`    |                   | list of [`TokenOwner`] |
//! | `GET /v1/drops`             |                   | list of [`DropRow`] |
//! | `GET /v1/steering`          |                   | list of [`RuleRow`] |
//! | `GET /v1/agents`            |                   | [`AgentSummary`]    |
//! | `GET /v1/doctor`            |                   | list of [`Finding`] |
//! | `POST /v1/backends`         | [`AddBackend`]    | [`Changed`]         |
//! | `POST /v1/backends/remove`  | [`RemoveBackend`] | [`Changed`]         |
//! | `POST /v1/backends/drain`   | [`NamedBackend`]  | [`Changed`]         |
//! | `POST /v1/backends/undrain` | [`NamedBackend`]  | [`Changed`]         |
//! | `POST /v1/backends/weight`  | [`WeighBackend`]  | [`Changed`]         |
//! | `POST /v1/reload`           |                   | [`Changed`]         |
//! | `GET /metrics`              |                   | OpenMetrics text; by TCP, too, see [`metrics_router`] |
//!
//! Whatever goes wrong is a [`Failure`] with one sentence: 400 the request is wrong, 404 there is no such thing,
//! 409 the data plane refused, 503 there is no data plane, 500 the change cannot be kept.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use config::{Config, Problem};
use ipc::message::{Event, Name};
use tokio::sync::Mutex;

use crate::agents::Agents;
use crate::control::{ChangeError, Control};
use crate::deadline::{Deadline, MAX_SPAN, say_span};
use crate::overrides::{self, Overrides};
use crate::session::{Outcome, Session};
use crate::view::*;
use crate::{doctor, metrics, problem, rules, table};

/// What every request sees.
pub struct Api {
    control: Arc<Control>,
    session: Session,
    agents: Option<Arc<Agents>>,
    /// Changes go one after another: a refused one is taken back before the next begins.
    changing: Mutex<()>,
}

/// What a reload cannot change.
const AGENTS_RESTART: &str =
    "[agents] changed: restart weft-ctrlplane for all of it but the names of its files";

/// A failure with its status code.
struct Error(StatusCode, String);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.0, Json(Failure { error: self.1 })).into_response()
    }
}

impl From<JsonRejection> for Error {
    fn from(rejection: JsonRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

type Answer<T> = Result<Json<T>, Error>;
type Body<T> = Result<Json<T>, JsonRejection>;

impl Api {
    /// Over one control plane.
    pub fn new(control: Arc<Control>, session: Session, agents: Option<Arc<Agents>>) -> Arc<Self> {
        Arc::new(Self { control, session, agents, changing: Mutex::new(()) })
    }
}

/// The one path that strangers may see: it changes nothing and asks nothing.
pub fn metrics_router(api: Arc<Api>) -> Router {
    Router::new().route("/metrics", get(scrape)).fallback(not_here).with_state(api)
}

async fn not_here() -> Error {
    Error(StatusCode::NOT_FOUND, "there is /metrics here and nothing else".to_owned())
}

async fn scrape(Shared(api): Shared<Arc<Api>>) -> Result<impl IntoResponse, Error> {
    let view = api.session.view().await.ok();
    let agents = table::agents(&api.control, api.agents.as_deref(), view.as_ref());
    let page = metrics::page(view.as_ref(), &agents)
        .map_err(|error| Error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page))
}

/// All routes.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/vips", get(vips))
        .route("/v1/backends", get(backends).post(add))
        .route("/v1/backends/remove", post(remove))
        .route("/v1/backends/drain", post(drain))
        .route("/v1/backends/undrain", post(undrain))
        .route("/v1/backends/weight", post(weigh))
        .route("/v1/tokens", get(tokens))
        .route("/v1/tokens/{token}", get(token_owners))
        .route("/v1/drops", get(drops))
        .route("/v1/steering", get(steering))
        .route("/metrics", get(scrape))
        .route("/v1/agents", get(agents))
        .route("/v1/doctor", get(doctor))
        .route("/v1/reload", post(reload))
        .fallback(unknown)
        .with_state(api)
}

async fn unknown() -> Error {
    Error(
        StatusCode::NOT_FOUND,
        "there is no such path; weftctl and weft-ctrlplane may be of two versions".to_owned(),
    )
}

async fn status(Shared(api): Shared<Arc<Api>>) -> Json<Status> {
    // The view comes first: asking it finds out whether the link is up.
    let view = api.session.view().await;
    let (link, revision) = (api.control.link(), api.control.revision());
    let in_sync = link.attached && link.revision == revision && link.refused.is_none();
    let mut dataplane = DataplaneStatus {
        attached: link.attached,
        message: link.message,
        generation: link.generation,
        in_sync,
        refused: link.refused,
        ..DataplaneStatus::default()
    };
    if let Ok(view) = &view {
        table::fill_status(view, &mut dataplane);
    }
    let problems = problem::all(&api.control, &dataplane, view.as_ref().ok());
    Json(Status {
        problems,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        config: api.control.path().display().to_string(),
        dataplane,
        drift: api.control.drift(),
        unresolved: table::unresolved(&api.control),
        reload_problem: api.control.reload_problem(),
    })
}

async fn vips(Shared(api): Shared<Arc<Api>>) -> Json<Vec<VipRow>> {
    let view = api.session.view().await.ok();
    Json(table::vips(&api.control.effective(), view.as_ref()))
}

async fn backends(Shared(api): Shared<Arc<Api>>) -> Json<Vec<BackendRow>> {
    let view = api.session.view().await.ok();
    Json(table::backends(&api.control, view.as_ref()))
}

async fn tokens(Shared(api): Shared<Arc<Api>>) -> Answer<TokenSummary> {
    let view = api.session.view().await.map_err(no_dataplane)?;
    Ok(Json(table::tokens(&view)))
}

async fn agents(Shared(api): Shared<Arc<Api>>) -> Json<AgentSummary> {
    let view = api.session.view().await.ok();
    Json(table::agents(&api.control, api.agents.as_deref(), view.as_ref()))
}

async fn doctor(Shared(api): Shared<Arc<Api>>) -> Json<Vec<Finding>> {
    let status = status(Shared(api.clone())).await.0;
    let view = api.session.view().await.ok();
    let agents = table::agents(&api.control, api.agents.as_deref(), view.as_ref());
    Json(doctor::findings(&api.control.effective(), &status, &agents, view.as_ref()))
}

async fn drops(Shared(api): Shared<Arc<Api>>) -> Answer<Vec<DropRow>> {
    let view = api.session.view().await.map_err(no_dataplane)?;
    Ok(Json(table::drops(&view.counters)))
}

async fn steering(Shared(api): Shared<Arc<Api>>) -> Answer<Vec<RuleRow>> {
    let view = api.session.view().await.map_err(no_dataplane)?;
    Ok(Json(rules::all(&view)))
}

async fn token_owners(Shared(api): Shared<Arc<Api>>, Path(text): Path<String>) -> Answer<Vec<TokenOwner>> {
    let token = parse_token(&text).map_err(bad)?;
    let owners = api.session.find_token(token).await.map_err(no_dataplane)?;
    let owners = owners.iter().filter_map(|event| match event {
        Event::TokenFound { token, pool, backend, rank, ambiguous, age_seconds } => Some(TokenOwner {
            token: format!("{token:08x}"),
            pool: pool.to_string(),
            backend: backend.to_string(),
            rank: rank.to_string(),
            ambiguous: *ambiguous,
            age_seconds: *age_seconds,
        }),
        _ => None,
    });
    Ok(Json(owners.collect()))
}

/// Reads a token as Weft prints it: 8 hexadecimal digits, an `0x` before them allowed.
pub fn parse_token(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = digits.len() <= 8 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u32::from_str_radix(digits, 16)
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| format!("\"{text}\" is no token; write up to 8 hexadecimal digits, as in 913e6c21"))
}

async fn add(Shared(api): Shared<Arc<Api>>, body: Body<AddBackend>) -> Answer<Changed> {
    let Json(request) = body?;
    let weight = request.weight.unwrap_or(100);
    let name = parse_name(&request.name)?;
    let backend = overrides::backend(name, &request.address, request.mac.as_deref(), weight)
        .and_then(|backend| overrides::with_number(backend, request.number))
        .and_then(|backend| {
            overrides::with_endpoint(backend, request.endpoint_port, &request.endpoint_address)
        })
        .map_err(bad)?;
    api.change(|config, overrides| {
        let pool = the_pool(config, request.pool.as_deref())?;
        config.check_backend(&pool, &backend)?;
        overrides.add(pool, backend);
        Ok((pool, format!("backend `{name}` added")))
    })
    .await
}

async fn remove(Shared(api): Shared<Arc<Api>>, body: Body<RemoveBackend>) -> Answer<Changed> {
    let Json(request) = body?;
    let name = parse_name(&request.name)?;
    let end = match request.deadline_seconds {
        None => "its connections keep it until their end".to_owned(),
        Some(0) => "its connections end now".to_owned(),
        Some(seconds) if seconds <= MAX_SPAN => {
            format!("its connections keep it for {} at most", say_span(u64::from(seconds)))
        }
        Some(_) => return Err(bad(format!("a deadline is at most {} h away", MAX_SPAN / 3600))),
    };
    let view = api.session.view().await.ok();
    let named = request.pool.as_deref();
    api.change(|config, overrides| {
        let deadline = request.deadline_seconds.map(Deadline::after);
        let pool = match pool_of(config, named, name) {
            Ok(pool) => pool,
            // One that is removed already may get a deadline yet.
            Err(missing) => {
                let pool = view.as_ref().and_then(|view| table::pool_of_removed(view, named, name));
                let pool = pool.filter(|pool| config.pools.iter().any(|other| other.name == *pool));
                let pool = pool.ok_or(missing)?;
                if deadline.is_none() {
                    // Nothing changes, so that who waited for its end may wait again.
                    return Ok((
                        pool,
                        format!(
                            "backend `{name}` is removed already; --deadline or --now would end its connections"
                        ),
                    ));
                }
                overrides.remove(pool, name, deadline);
                return Ok((pool, format!("backend `{name}` was removed before; {end}")));
            }
        };
        let alone = |other: &config::Pool| other.name == pool && other.backends.len() == 1;
        if config.pools.iter().any(alone) {
            return Err(format!(
                "backend `{name}` is the last of pool `{pool}`; add another first, or drain it"
            ));
        }
        overrides.remove(pool, name, deadline);
        Ok((pool, format!("backend `{name}` removed; {end}")))
    })
    .await
}

async fn drain(Shared(api): Shared<Arc<Api>>, body: Body<NamedBackend>) -> Answer<Changed> {
    let Json(request) = body?;
    let name = parse_name(&request.name)?;
    api.change(|config, overrides| {
        let pool = pool_of(config, request.pool.as_deref(), name)?;
        overrides.drain(pool, name, true);
        let mut said = format!("backend `{name}` drains: it keeps its connections and gets no new ones");
        said.push_str(&idle_note(config, overrides, pool));
        Ok((pool, said))
    })
    .await
}

async fn undrain(Shared(api): Shared<Arc<Api>>, body: Body<NamedBackend>) -> Answer<Changed> {
    let Json(request) = body?;
    let name = parse_name(&request.name)?;
    api.change(|config, overrides| {
        let pool = pool_of(config, request.pool.as_deref(), name)?;
        overrides.drain(pool, name, false);
        let weighs = config
            .pools
            .iter()
            .filter(|other| other.name == pool)
            .any(|pool| pool.backends.iter().any(|backend| backend.name == name && backend.weight > 0));
        let said = if weighs {
            format!("backend `{name}` takes new connections")
        } else {
            format!("backend `{name}` drains no more, but gets no new connections: its weight is 0")
        };
        Ok((pool, said))
    })
    .await
}

async fn weigh(Shared(api): Shared<Arc<Api>>, body: Body<WeighBackend>) -> Answer<Changed> {
    let Json(request) = body?;
    let name = parse_name(&request.name)?;
    config::check_weight(request.weight).map_err(bad)?;
    api.change(|config, overrides| {
        let pool = pool_of(config, request.pool.as_deref(), name)?;
        overrides.weight(pool, name, request.weight);
        let mut said = format!("backend `{name}` has weight {}", request.weight);
        said.push_str(&idle_note(config, overrides, pool));
        Ok((pool, said))
    })
    .await
}

/// What follows where a change leaves a pool nobody to choose; else nothing.
fn idle_note(config: &Config, overrides: &Overrides, pool: Name) -> String {
    match overrides.takes_new(config, pool) {
        true => String::new(),
        false => {
            format!("; no backend of pool `{pool}` is left to take new connections, which are dropped")
        }
    }
}

async fn reload(Shared(api): Shared<Arc<Api>>) -> Answer<Changed> {
    let notes = api
        .reload()
        .await
        .map_err(|problems| bad(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let said =
        std::iter::once("configuration reloaded".to_owned()).chain(notes).collect::<Vec<_>>().join("; ");
    finish(None, said, api.session.sync().await)
}

impl Api {
    /// Reads the configuration again, and what it names. Returns what the operator should know.
    pub async fn reload(&self) -> Result<Vec<String>, Vec<Problem>> {
        let _turn = self.changing.lock().await;
        self.control.reload(|file| {
            let Some(agents) = &self.agents else {
                let is_new = file.agents.is_some();
                return Ok(is_new.then(|| AGENTS_RESTART.to_owned()).into_iter().collect());
            };
            if let Some(settings) = &file.agents {
                agents.reload(settings).map_err(|error| error.to_string())?;
            }
            let needs_restart = agents.needs_restart(file.agents.as_ref());
            Ok(needs_restart.then(|| AGENTS_RESTART.to_owned()).into_iter().collect())
        })
    }

    /// Makes a change, pushes it, and takes it back if the data plane refuses it. The edit says which pool it was
    /// about and what was done.
    async fn change(
        &self,
        edit: impl FnOnce(&Config, &mut Overrides) -> Result<(Name, String), String>,
    ) -> Answer<Changed> {
        let _turn = self.changing.lock().await;
        let (before, (pool, said)) = self.control.change(edit).map_err(|error| match error {
            ChangeError::Invalid(sentence) => bad(sentence),
            ChangeError::NotKept(error) => Error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        })?;
        let outcome = self.session.sync().await;
        if matches!(outcome, Outcome::Refused(_)) {
            let restored = self.control.restore(before);
            restored.map_err(|error| Error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
            // What the data plane has is the state before; this says so to the status.
            self.session.sync().await;
        }
        finish(Some(pool), said, outcome)
    }
}

fn finish(pool: Option<Name>, said: String, outcome: Outcome) -> Answer<Changed> {
    let (applied, generation, message) = match outcome {
        Outcome::Applied { generation } => {
            (true, Some(generation), format!("{said} (generation {generation})"))
        }
        Outcome::Waiting(reason) => {
            let message = format!("{said}; kept, and applied as soon as there is a data plane: {reason}");
            (false, None, message)
        }
        Outcome::Refused(reason) => return Err(Error(StatusCode::CONFLICT, reason)),
    };
    Ok(Json(Changed { applied, generation, pool: pool.map(|pool| pool.to_string()), message }))
}

fn bad(sentence: String) -> Error {
    let missing = sentence.starts_with("there is no ");
    Error(if missing { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST }, sentence)
}

fn no_dataplane(sentence: String) -> Error {
    Error(StatusCode::SERVICE_UNAVAILABLE, sentence)
}

fn parse_name(text: &str) -> Result<Name, Error> {
    text.parse()
        .map_err(|error: ipc::message::NameError| bad(format!("\"{text}\" will not do as a name: {error}")))
}

/// The pool a new backend joins: the named one, or the only one.
fn the_pool(config: &Config, named: Option<&str>) -> Result<Name, String> {
    match (named, &config.pools[..]) {
        (Some(named), pools) => pools
            .iter()
            .map(|pool| pool.name)
            .find(|pool| pool.as_str() == named)
            .ok_or_else(|| no_pool(config, named)),
        (None, [only]) => Ok(only.name),
        (None, _) => Err(format!("name the pool, too: {}", pools(config))),
    }
}

/// The pool of an existing backend: the named one, or the only one that has a backend of this name.
fn pool_of(config: &Config, named: Option<&str>, name: Name) -> Result<Name, String> {
    let has = |pool: &&config::Pool| pool.backends.iter().any(|backend| backend.name == name);
    let holders: Vec<Name> = config.pools.iter().filter(has).map(|pool| pool.name).collect();
    match (named, &holders[..]) {
        (Some(named), _) if !config.pools.iter().any(|pool| pool.name.as_str() == named) => {
            Err(no_pool(config, named))
        }
        (Some(named), holders) => {
            holders.iter().copied().find(|pool| pool.as_str() == named).ok_or_else(|| {
                format!("there is no backend `{name}` in pool `{named}`; see `weftctl backend list`")
            })
        }
        (None, [only]) => Ok(*only),
        (None, []) => Err(format!("there is no backend `{name}` in any pool; see `weftctl backend list`")),
        (None, several) => {
            let several = several.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
            Err(format!("several pools have a backend `{name}`, name the pool, too: {several}"))
        }
    }
}

fn no_pool(config: &Config, named: &str) -> String {
    format!("there is no pool `{named}`; there is {}", pools(config))
}

fn pools(config: &Config) -> String {
    let names: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_printed() {
        assert_eq!(parse_token("913e6c21"), Ok(0x913e_6c21));
        assert_eq!(parse_token("0x1"), Ok(1));
        for text in ["", "0x", "913e6c210", "+1", "xyz"] {
            assert!(parse_token(text).unwrap_err().contains("is no token"), "{text}");
        }
    }
}
