//! Reads how a VIP steers joins: the schemes in order of preference, and what each of them needs.

use ipc::message::{Scheme, Secret, Steering, TokenMap, WrongEndpoint};

use crate::pool::PoolDraft;
use crate::problem::{Report, Span};
use crate::schema::{Key, mptcp as key};
use crate::table::Table;
use crate::value::{parse_secret, read_one};

/// A VIP's steering while the file is read.
pub(crate) struct SteeringDraft {
    pub steering: Steering,
    /// Where it stands, or would stand.
    span: Span,
}

impl SteeringDraft {
    /// That of a VIP without `[vip.mptcp]`.
    pub(crate) fn usual(learn: bool) -> Self {
        Self { steering: Steering::learning(learn), span: 0..0 }
    }
}

/// Reads the steering of a `[vip.mptcp]`.
pub(crate) fn read(table: &Table<'_>, report: &mut Report<'_>) -> SteeringDraft {
    let words = table.choices(&key::STEERING, report);
    let scheme = |word: &str| Scheme::ALL.iter().copied().find(|scheme| scheme.name() == word);
    let mut steering = Steering::by(words.iter().filter_map(|word| scheme(word.value)));
    if table.choice(&key::TOKEN_MAP, report).is_some_and(|word| word.value == TokenMap::Cipher.name()) {
        steering.token_map = TokenMap::Cipher;
    }
    let drafts = table.choices(&key::EXPLICIT_TOKENS, report);
    steering.application_tokens = drafts.iter().any(|word| word.value == "G");
    steering.external_tokens = drafts.iter().any(|word| word.value == "E");
    let keys = [&key::CIPHER_KEY_EVEN, &key::CIPHER_KEY_ODD];
    steering.cipher_keys = keys.map(|key| secret(table, key, report));
    let wants_key = steering.has(Scheme::TokenMap) && steering.token_map == TokenMap::Cipher;
    if wants_key && !keys.iter().any(|key| table.given(key).is_some()) {
        report.problem(
            &table.span,
            "`token_map` is \"cipher\" without a key; give `cipher_key_even` or `cipher_key_odd`",
        );
    }
    steering.wrong_endpoint = match table.choice(&key::WRONG_ENDPOINT, report).map(|word| word.value) {
        Some("drop") => WrongEndpoint::Drop,
        Some("forward") => WrongEndpoint::Forward,
        _ => WrongEndpoint::Reset,
    };
    SteeringDraft { steering, span: table.span.clone() }
}

/// Reads a secret of `N` bytes, if it is given.
fn secret<const N: usize>(table: &Table<'_>, key: &Key, report: &mut Report<'_>) -> Option<Secret<N>> {
    table.given(key)?;
    let text = table.text(key, report)?;
    read_one(text, report, parse_secret).map(|secret| Secret(secret.value))
}

/// Checks a VIP's steering against the backends of its pool.
pub(crate) fn check(draft: &SteeringDraft, pool: &PoolDraft, report: &mut Report<'_>) {
    let steering = &draft.steering;
    if steering.has(Scheme::TokenMap) && steering.token_map == TokenMap::Cipher {
        for backend in pool.backends.iter().filter(|backend| backend.handles.number.is_none()) {
            let line = report.line(&draft.span);
            report.problem(
                &backend.span,
                format!(
                    "backend {} has no `number`, which the VIP's encrypted tokens need (line {line}); give it one",
                    backend.label()
                ),
            );
        }
    }
}
