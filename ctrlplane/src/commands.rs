//! What a backend's server is told so that joins find it: `weftctl backend commands`.
//!
//! Under `endpoint` a stock Linux kernel is told by sysctl and `ip mptcp` ([`crate::endpoint`]). Under `token-map` and
//! `chosen-key` a program of the server's makes tokens or timestamps, and is told its number and its part of the token
//! space, as assignments that a shell and a systemd `EnvironmentFile` understand. Secrets are not told: this may be piped
//! anywhere.

use ipc::id::BackendId;
use serde::Serialize;
use steering::ranges::{Ranges, SHARE_BITS};

use crate::endpoint;
use crate::view::{BackendRow, VipRow};

/// What to run, or to know, on one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Commands {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// The commands, in order.
    pub commands: Vec<String>,
    /// Its number in encrypted tokens and in timestamps; null where none is needed.
    pub number: Option<u16>,
    /// How its tokens say who chose it: `ranges`, `cipher`, `chosen-key`.
    pub token_maps: Vec<String>,
    /// The tokens that are its own, in order, under `ranges` and `chosen-key`.
    pub token_ranges: Vec<TokenRange>,
    /// The parities of tokens there is a key for, under `cipher`.
    pub cipher_keys: Vec<String>,
    /// What the operator should know besides, one sentence each.
    pub notes: Vec<String>,
}

/// Tokens from one to another, both its own; 8 hexadecimal digits each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenRange {
    /// The first.
    pub first: String,
    /// The last.
    pub last: String,
}

impl Commands {
    /// For a shell: everything that is neither command nor assignment is a comment.
    pub fn text(&self) -> String {
        let what = if self.commands.is_empty() {
            "what a server program is to know"
        } else {
            "run this on the server, as root, before clients connect"
        };
        let mut text = format!("# Backend {} of pool {}: {what}.\n", self.backend, self.pool);
        self.notes.iter().for_each(|note| text.push_str(&format!("# {note}\n")));
        let ranges = self.token_ranges.iter().map(|range| format!("{}-{}", range.first, range.last));
        let assignments = [
            ("WEFT_NUMBER", self.number.map(|number| number.to_string()).unwrap_or_default()),
            ("WEFT_TOKEN_MAP", self.token_maps.join(" ")),
            ("WEFT_CIPHER_KEYS", self.cipher_keys.join(" ")),
            ("WEFT_TOKEN_RANGES", ranges.collect::<Vec<_>>().join(" ")),
        ];
        for (name, value) in assignments.iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("{name}=\"{value}\"\n"));
        }
        self.commands.iter().for_each(|command| text.push_str(&format!("{command}\n")));
        text
    }

    pub(crate) fn note(&mut self, sentence: &str) {
        if !self.notes.iter().any(|note| note == sentence) {
            self.notes.push(sentence.to_owned());
        }
    }
}

/// The commands for the backend of this name, in the pool of this name if there are several. The error is one sentence
/// that says what to do.
pub fn commands(
    vips: &[VipRow],
    backends: &[BackendRow],
    pool: Option<&str>,
    name: &str,
) -> Result<Commands, String> {
    let backend = find(backends, pool, name)?;
    let pool = &backend.pool;
    let vips: Vec<&VipRow> = vips.iter().filter(|vip| vip.pool == *pool).collect();
    let mut told = Commands { pool: pool.clone(), backend: name.to_owned(), ..Commands::default() };
    let steered: Vec<&VipRow> = vips.iter().copied().filter(|vip| has(vip, endpoint::SCHEME)).collect();
    if !steered.is_empty() {
        endpoint::tell(&steered, backend, &mut told)?;
    }
    vips.iter().for_each(|vip| tell_map(vip, backend, &mut told));
    if told.token_maps.iter().any(|map| map != "cipher") {
        told.token_ranges = token_ranges(backends, backend);
        if backends.iter().any(|row| row.pool == *pool && row.state.is_none()) {
            told.note(
                "weft-dataplane does not run, or has not all of this yet: a removed backend that it still knows keeps a \
                 part of these ranges.",
            );
        }
    }
    if told.token_maps.is_empty() && told.commands.is_empty() {
        return Err(format!(
            "no VIP of pool `{pool}` steers by \"endpoint\", \"token-map\" or \"chosen-key\", so backend `{name}` needs no \
             commands; put one of them into `steering` of [vip.mptcp] first"
        ));
    }
    Ok(told)
}

fn has(vip: &VipRow, scheme: &str) -> bool {
    vip.steering.iter().any(|word| word == scheme)
}

/// Tells what a VIP's tokens are to say.
fn tell_map(vip: &VipRow, backend: &BackendRow, told: &mut Commands) {
    let map = match (has(vip, "chosen-key"), has(vip, "token-map")) {
        (true, _) => "chosen-key",
        (false, true) => vip.token_map.as_str(),
        (false, false) => return,
    };
    match map {
        "cipher" => {
            told.number = backend.number;
            let news = vip.cipher_keys.iter().filter(|parity| !told.cipher_keys.contains(parity));
            let news: Vec<String> = news.cloned().collect();
            told.cipher_keys.extend(news);
            told.note(
                "cipher: a token is WEFT_NUMBER, encrypted with the key of its parity. The keys are in weft.toml, or in \
                 the files it names; they are not printed.",
            );
        }
        "chosen-key" => {
            told.number = backend.number;
            told.note(
                "chosen-key: take the key in the private data of the GUE header (UDP port 6080) for your own, and put \
                 WEFT_NUMBER into the 12 low bits of every timestamp. A key of the server's own, where a SYN brings none, \
                 needs a token in WEFT_TOKEN_RANGES.",
            );
        }
        _ => told.note(
            "ranges: draw keys until the token lies in WEFT_TOKEN_RANGES. They change when a backend of the pool comes or \
             goes: ask again then.",
        ),
    }
    if !told.token_maps.iter().any(|other| other == map) {
        told.token_maps.push(map.to_owned());
    }
}

/// The part of the token space that belongs to a backend, among all of its pool that the data plane knows.
fn token_ranges(backends: &[BackendRow], backend: &BackendRow) -> Vec<TokenRange> {
    let known = |row: &&BackendRow| row.pool == backend.pool && row.state.as_deref() != Some("deleted");
    let names = backends.iter().filter(known).map(|row| row.name.as_str());
    let numbered: Vec<(&str, BackendId)> = names.zip((0..).map(BackendId)).collect();
    let Some((_, own)) = numbered.iter().find(|(name, _)| *name == backend.name) else {
        return Vec::new();
    };
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for share in Ranges::new(numbered.iter().copied()).shares(*own) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == share => *last = share,
            _ => runs.push((share, share)),
        }
    }
    let range = |(first, last): &(u16, u16)| TokenRange {
        first: format!("{:08x}", u32::from(*first) << SHARE_BITS),
        last: format!("{:08x}", u32::from(*last) << SHARE_BITS | ((1 << SHARE_BITS) - 1)),
    };
    runs.iter().map(range).collect()
}

fn find<'r>(rows: &'r [BackendRow], pool: Option<&str>, name: &str) -> Result<&'r BackendRow, String> {
    let is_left = |row: &BackendRow| matches!(row.state.as_deref(), Some("removed" | "deleted"));
    let named =
        |row: &&BackendRow| row.name == name && !is_left(row) && pool.is_none_or(|pool| row.pool == pool);
    let found: Vec<&BackendRow> = rows.iter().filter(named).collect();
    match (found.as_slice(), pool) {
        ([only], _) => Ok(only),
        ([], Some(pool)) => {
            Err(format!("there is no backend `{name}` in pool `{pool}`; see `weftctl backend list`"))
        }
        ([], None) => Err(format!("there is no backend `{name}` in any pool; see `weftctl backend list`")),
        (several, _) => {
            let pools = several.iter().map(|row| row.pool.as_str()).collect::<Vec<_>>().join(", ");
            Err(format!("several pools have a backend `{name}`, name the pool, too: {pools}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(pool: &str, steering: &[&str], token_map: &str) -> VipRow {
        VipRow {
            pool: pool.to_owned(),
            steering: steering.iter().map(|word| (*word).to_owned()).collect(),
            token_map: token_map.to_owned(),
            cipher_keys: if token_map == "cipher" { vec!["odd".to_owned()] } else { Vec::new() },
            ..VipRow::default()
        }
    }

    fn backend(pool: &str, name: &str, number: Option<u16>, state: Option<&str>) -> BackendRow {
        BackendRow {
            pool: pool.to_owned(),
            name: name.to_owned(),
            number,
            state: state.map(str::to_owned),
            ..BackendRow::default()
        }
    }

    /// Whether a token lies in one of the ranges, as a server would look.
    fn holds(told: &Commands, token: u32) -> bool {
        let of = |text: &str| u32::from_str_radix(text, 16).unwrap();
        told.token_ranges.iter().any(|range| (of(&range.first)..=of(&range.last)).contains(&token))
    }

    #[test]
    fn every_token_is_in_the_ranges_of_its_owner_and_of_no_other() {
        let vips = [vip("p", &["token-map"], "ranges")];
        let active = Some("active");
        let rows = [
            backend("p", "a", None, active),
            backend("p", "b", None, active),
            backend("q", "x", None, active),
            backend("p", "c", None, Some("removed")),
            backend("p", "d", None, Some("deleted")),
        ];
        // The split of three names is a fixed one: see the tests of `steering::ranges`. A removed backend keeps its part.
        let owners = Ranges::new([("a", BackendId(1)), ("b", BackendId(2)), ("c", BackendId(3))]);
        let told = ["a", "b"].map(|name| commands(&vips, &rows, None, name).unwrap());
        for token in (0..=u32::MAX).step_by(99_991) {
            let held = [holds(&told[0], token), holds(&told[1], token)];
            let owner = owners.owner(token).unwrap();
            assert_eq!(held, [owner == BackendId(1), owner == BackendId(2)], "{token:08x}");
        }
        assert_eq!(told[0].token_ranges[0], TokenRange { first: "00000000".into(), last: "000fffff".into() });
        let text = told[0].text();
        assert!(
            text.contains("\nWEFT_TOKEN_MAP=\"ranges\"\nWEFT_TOKEN_RANGES=\"00000000-000fffff 005"),
            "{text}"
        );
        assert_eq!((told[0].number, told[0].notes.len()), (None, 1));
    }

    #[test]
    fn a_cipher_needs_a_number_and_no_range_and_tells_no_key() {
        let vips = [vip("p", &["learn", "token-map"], "cipher")];
        let told = commands(&vips, &[backend("p", "a", Some(7), None)], None, "a").unwrap();
        assert_eq!((told.number, told.token_ranges.len()), (Some(7), 0));
        let text = told.text();
        let assigned: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(assigned, ["WEFT_NUMBER=\"7\"", "WEFT_TOKEN_MAP=\"cipher\"", "WEFT_CIPHER_KEYS=\"odd\""]);
    }

    #[test]
    fn chosen_keys_need_a_number_and_the_ranges_for_keys_of_the_servers_own() {
        let vips = [vip("p", &["chosen-key", "learn"], "ranges")];
        let rows = [backend("p", "a", Some(1), Some("active")), backend("p", "b", Some(2), None)];
        let told = commands(&vips, &rows, None, "b").unwrap();
        assert_eq!((told.number, told.token_maps.as_slice()), (Some(2), &["chosen-key".to_owned()][..]));
        assert!(!told.token_ranges.is_empty());
        assert!(told.notes.iter().any(|note| note.starts_with("weft-dataplane does not run")), "{told:?}");
    }
}
