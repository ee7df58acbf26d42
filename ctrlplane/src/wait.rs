//! `weftctl backend drain --wait` and `remove --wait`: until nothing is left, with a progress bar on a terminal, a
//! line now and then elsewhere, and a line of JSON a second with `--json`.
//!
//! The data plane counts flows and tokens of backends by a sweep through its tables, so a count may be as old as a
//! sweep takes, and may be from before the change. "None left" is therefore believed of a draining backend only
//! after it was said for longer than two sweeps take; of a removed one it is said by the data plane itself, which
//! forgets it. A control plane or data plane that is restarted meanwhile is waited for.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::client::{self, ClientError};
use crate::ctl::{Ctl, say};
use crate::deadline::say_span;
use crate::view::{BackendRow, Changed, Status};

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Pause between two lines where there is no terminal.
const LINE: Duration = Duration::from_secs(10);
/// Pause between two lines of JSON.
const JSON_LINE: Duration = Duration::from_secs(1);
/// How long a process that does not answer is waited for.
const ABSENCE: Duration = Duration::from_secs(15);
/// Two sweeps of a small table, their pauses included.
const TWO_SWEEPS: Duration = Duration::from_secs(3);
/// And for each million entries more: a sweep's turns, twice.
const TWO_SWEEPS_PER_MILLION: Duration = Duration::from_millis(500);

/// The bar, in the words of its library.
const BAR: &str = "{bar:30} {msg}, {elapsed}";

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// No flow and no token is left.
    Drained,
    /// The data plane has forgotten it, or nothing reaches it any more.
    Gone,
}

/// Whom it is waited for, and how long.
pub(crate) struct Waiting {
    pub goal: Goal,
    pub pool: String,
    pub name: String,
    pub deadline: Option<Duration>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reached,
    Deadline,
    /// Somebody changed the backend meanwhile.
    Changed,
}

/// What is known of the backend at one look.
#[derive(Clone, Debug, Default)]
struct Left {
    state: Option<String>,
    flows: u64,
    tokens: u64,
    deadline: Option<u32>,
}

impl Left {
    fn of(row: &BackendRow) -> Self {
        Self {
            state: row.state.clone(),
            flows: row.flows.unwrap_or_default(),
            tokens: row.tokens.unwrap_or_default(),
            deadline: row.deadline_seconds,
        }
    }

    fn count(&self) -> u64 {
        self.flows + self.tokens
    }

    fn say(&self) -> String {
        format!("{} flows and {} tokens left", self.flows, self.tokens)
    }
}

/// Waits and shows how it goes. The error is why nobody can tell any more.
pub(crate) async fn wait(ctl: &Ctl, waiting: &Waiting, changed: &Changed) -> Result<End, ClientError> {
    let settle = settle_time(&ctl.get("/v1/status").await?);
    let mut show = Show::new(ctl.json, waiting, changed);
    let since = Instant::now();
    let mut answered = Instant::now();
    let mut none_since: Option<Instant> = None;
    let mut last = Left::default();
    let end = loop {
        // One that is stuck is as absent as one that is gone, and holds up no deadline.
        let left = waiting.deadline.map_or(ABSENCE, |deadline| deadline.saturating_sub(since.elapsed()));
        let patience = left.clamp(LOOK, ABSENCE);
        match client::within(&ctl.socket, patience, look(ctl, waiting)).await {
            Ok(left) => {
                answered = Instant::now();
                // A backend that the data plane does not tell of yet is no news of it.
                let end = verdict(waiting.goal, left.as_ref(), &mut none_since, settle);
                last = left.unwrap_or_default();
                if let Some(end) = end {
                    break end;
                }
            }
            Err(error) if answered.elapsed() >= ABSENCE => return Err(error),
            Err(_) => none_since = None,
        }
        if waiting.deadline.is_some_and(|deadline| since.elapsed() >= deadline) {
            break End::Deadline;
        }
        show.progress(&last, since.elapsed());
        let left = waiting.deadline.map_or(LOOK, |deadline| deadline.saturating_sub(since.elapsed()));
        tokio::time::sleep(LOOK.min(left)).await;
    };
    show.end(end, &last, since.elapsed());
    Ok(end)
}

/// How long "none left" must have been said.
fn settle_time(status: &Status) -> Duration {
    let tables = &status.dataplane.tables;
    let millions = (tables.flow_capacity + tables.token_capacity) / 1_000_000;
    TWO_SWEEPS + TWO_SWEEPS_PER_MILLION * u32::try_from(millions).unwrap_or(u32::MAX)
}

/// The backend as it is now; `None` when there is none of its name any more.
async fn look(ctl: &Ctl, waiting: &Waiting) -> Result<Option<Left>, ClientError> {
    let rows: Vec<BackendRow> = ctl.get("/v1/backends").await?;
    let row = rows.iter().find(|row| row.pool == waiting.pool && row.name == waiting.name);
    match row {
        // Without a state there is no data plane that could tell.
        Some(row) if row.state.is_none() => Err(ClientError::NoDataplane(
            "weft-dataplane does not tell of the backend; is it running?".to_owned(),
        )),
        None => {
            // Nothing can be told without a data plane: only one that answers can have forgotten it.
            let status: Status = ctl.get("/v1/status").await?;
            match status.dataplane.attached {
                true => Ok(None),
                false => Err(ClientError::NoDataplane(status.dataplane.message)),
            }
        }
        Some(row) => Ok(Some(Left::of(row))),
    }
}

/// Whether it is over.
fn verdict(
    goal: Goal,
    left: Option<&Left>,
    none_since: &mut Option<Instant>,
    settle: Duration,
) -> Option<End> {
    let Some(left) = left else { return Some(End::Reached) };
    match (goal, left.state.as_deref()) {
        (_, Some("deleted")) => Some(End::Reached),
        (Goal::Gone, Some("removed")) => None,
        (Goal::Drained, Some("draining" | "removed")) => {
            if left.count() > 0 {
                *none_since = None;
                return None;
            }
            let since = none_since.get_or_insert_with(Instant::now);
            (since.elapsed() >= settle).then_some(End::Reached)
        }
        // Undrained, or added again.
        _ => Some(End::Changed),
    }
}

/// Where the progress goes.
enum Form {
    Bar(ProgressBar),
    Lines { said: Option<Instant> },
    Json { said: Option<Instant> },
}

struct Show<'a> {
    form: Form,
    waiting: &'a Waiting,
    /// The most that was left: the bar's length.
    most: u64,
}

impl<'a> Show<'a> {
    fn new(json: bool, waiting: &'a Waiting, changed: &Changed) -> Self {
        let form = if json {
            say(&format!("{}\n", json!(changed)));
            Form::Json { said: None }
        } else {
            say(&format!("{}\n", changed.message));
            if std::io::stderr().is_terminal() {
                let bar = ProgressBar::new(0);
                // A template that does not fit its library would be seen by the test; the default does, too.
                let style = ProgressStyle::with_template(BAR);
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                Form::Bar(bar)
            } else {
                Form::Lines { said: None }
            }
        };
        Self { form, waiting, most: 0 }
    }

    fn progress(&mut self, left: &Left, waited: Duration) {
        self.most = self.most.max(left.count());
        let until = match left.deadline {
            Some(seconds) => format!(", deleted in {}", say_span(u64::from(seconds))),
            None => String::new(),
        };
        let line = json_line(self.waiting, left, waited, None);
        let due = |said: &Option<Instant>, pause| said.is_none_or(|said| said.elapsed() >= pause);
        match &mut self.form {
            Form::Bar(bar) => {
                bar.set_length(self.most);
                bar.set_position(self.most.saturating_sub(left.count()));
                bar.set_message(format!("{}{until}", left.say()));
            }
            Form::Lines { said } if due(said, LINE) => {
                *said = Some(Instant::now());
                eprintln!("{}: {}{until}", self.waiting.name, left.say());
            }
            Form::Json { said } if due(said, JSON_LINE) => {
                *said = Some(Instant::now());
                say(&format!("{line}\n"));
            }
            Form::Lines { .. } | Form::Json { .. } => {}
        }
    }

    fn end(&self, end: End, left: &Left, waited: Duration) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
        if let Form::Json { .. } = &self.form {
            say(&format!("{}\n", json_line(self.waiting, left, waited, Some(end))));
            return;
        }
        let name = &self.waiting.name;
        let after = say_span(waited.as_secs());
        match (end, self.waiting.goal) {
            (End::Reached, Goal::Drained) => say(&format!("backend `{name}` is drained after {after}\n")),
            (End::Reached, Goal::Gone) => say(&format!("backend `{name}` is gone after {after}\n")),
            (End::Deadline, _) => {
                eprintln!("the deadline came: {}; backend `{name}` goes on draining", left.say());
            }
            (End::Changed, _) => {
                eprintln!("backend `{name}` was changed meanwhile; not waited for any longer")
            }
        }
    }
}

fn json_line(waiting: &Waiting, left: &Left, waited: Duration, end: Option<End>) -> Value {
    let end = end.map(|end| match end {
        End::Reached => "done",
        End::Deadline => "deadline",
        End::Changed => "changed",
    });
    json!({
        "pool": waiting.pool,
        "backend": waiting.name,
        "state": left.state,
        "flows": left.flows,
        "tokens": left.tokens,
        "deadline_seconds": left.deadline,
        "waited_seconds": waited.as_secs(),
        "end": end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(state: &str, flows: u64, tokens: u64) -> Left {
        Left { state: Some(state.to_owned()), flows, tokens, deadline: None }
    }

    #[test]
    fn none_left_of_a_draining_backend_is_believed_only_after_two_sweeps() {
        let (mut none_since, settle) = (None, Duration::from_secs(3600));
        let none = left("draining", 0, 0);
        assert_eq!(verdict(Goal::Drained, Some(&none), &mut none_since, settle), None);
        assert!(none_since.is_some());
        assert_eq!(verdict(Goal::Drained, Some(&left("draining", 0, 1)), &mut none_since, settle), None);
        assert_eq!(none_since, None, "one token that came back begins it anew");
        assert_eq!(verdict(Goal::Drained, Some(&none), &mut none_since, Duration::ZERO), Some(End::Reached));
    }

    #[test]
    fn a_removed_backend_is_gone_when_the_data_plane_says_so() {
        let mut none = None;
        let mut gone = |left: Option<&Left>| verdict(Goal::Gone, left, &mut none, Duration::ZERO);
        assert_eq!(gone(Some(&left("removed", 0, 0))), None, "it may be counted yet");
        assert_eq!(gone(Some(&left("deleted", 5, 0))), Some(End::Reached));
        assert_eq!(gone(None), Some(End::Reached));
        assert_eq!(gone(Some(&left("active", 5, 0))), Some(End::Changed), "added again");
    }

    #[test]
    fn the_bars_template_is_one_of_its_librarys() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }

    #[test]
    fn larger_tables_take_longer_to_be_believed() {
        let mut status = Status::default();
        assert_eq!(settle_time(&status), TWO_SWEEPS);
        status.dataplane.tables.flow_capacity = 100_000_000;
        assert_eq!(settle_time(&status), TWO_SWEEPS + Duration::from_secs(50));
    }
}
