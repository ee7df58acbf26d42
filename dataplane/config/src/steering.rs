//! Reads how a VIP steers joins: the schemes in order of preference, and what each of them needs.

use ipc::message::{Forward, Scheme, Steering, TokenMap, WrongEndpoint};

use crate::pool::PoolDraft;
use crate::problem::{At, Report, Span};
use crate::schema::mptcp as key;
use crate::secret::SecretKey;
use crate::table::Table;

/// The keys of even and odd tokens.
const CIPHER_KEYS: [SecretKey; 2] = [
    SecretKey { inside: &key::CIPHER_KEY_EVEN, file: &key::CIPHER_KEY_EVEN_FILE },
    SecretKey { inside: &key::CIPHER_KEY_ODD, file: &key::CIPHER_KEY_ODD_FILE },
];

/// What chosen keys are made of.
const KEY_SECRET: SecretKey = SecretKey { inside: &key::KEY_SECRET, file: &key::KEY_SECRET_FILE };

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
    steering.cipher_keys = CIPHER_KEYS.map(|key| key.read(table, report));
    let wants_key = steering.has(Scheme::TokenMap) && steering.token_map == TokenMap::Cipher;
    if wants_key && !CIPHER_KEYS.iter().any(|key| key.is_given(table)) {
        report.problem(
            &table.span,
            "`token_map` is \"cipher\" without a key; give `cipher_key_even` or `cipher_key_odd`, or a file \
             that holds one",
        );
    }
    steering.key_secret = KEY_SECRET.read(table, report);
    if steering.has(Scheme::ChosenKey) {
        check_chosen_key(&steering, table, report);
    }
    steering.wrong_endpoint = match table.choice(&key::WRONG_ENDPOINT, report).map(|word| word.value) {
        Some("drop") => WrongEndpoint::Drop,
        Some("forward") => WrongEndpoint::Forward,
        _ => WrongEndpoint::Reset,
    };
    SteeringDraft { steering, span: table.span.clone() }
}

/// Checks what `"chosen-key"` needs of its own table, and what it cannot stand beside: one token, one meaning.
fn check_chosen_key(steering: &Steering, table: &Table<'_>, report: &mut Report<'_>) {
    if !KEY_SECRET.is_given(table) {
        report.problem(
            &table.span,
            "`steering` has \"chosen-key\" without a secret; give `key_secret`, or `key_secret_file`: 32 \
             hexadecimal digits, as `openssl rand -hex 16` draws them",
        );
    }
    let span = table.given(&key::STEERING).unwrap_or_else(|| table.span.clone());
    if steering.has(Scheme::TokenMap) {
        report.problem(
            &span,
            "`steering` has \"chosen-key\" beside \"token-map\", and both say whose a token is; keep one of them",
        );
    }
    if let Some(span) =
        table.given(&key::EXPLICIT_TOKENS).filter(|_| !table.is_empty_list(&key::EXPLICIT_TOKENS))
    {
        report.problem(
            &span,
            "`explicit_tokens` beside \"chosen-key\", whose tokens are hashes of keys that Weft made; remove one",
        );
    }
}

/// What a backend's `number` is for under this steering; `None` where it needs none.
pub(crate) fn number_use(steering: &Steering) -> Option<&'static str> {
    if steering.has(Scheme::TokenMap) && steering.token_map == TokenMap::Cipher {
        return Some("the VIP's encrypted tokens need");
    }
    steering.has(Scheme::ChosenKey).then_some("the VIP's timestamps under \"chosen-key\" need")
}

/// Checks a VIP's steering against the way it forwards and the backends of its pool.
pub(crate) fn check(draft: &SteeringDraft, forward: &At<Forward>, pool: &PoolDraft, report: &mut Report<'_>) {
    let steering = &draft.steering;
    if steering.has(Scheme::ChosenKey) && forward.value != Forward::Gue {
        report.problem(
            &forward.span,
            format!(
                "the VIP forwards by {}, but steers by \"chosen-key\", whose keys travel in the GUE header; use \
                 `forward = \"gue\"`",
                forward.value
            ),
        );
    }
    let Some(needed_by) = number_use(steering) else {
        return;
    };
    for backend in pool.backends.iter().filter(|backend| backend.handles.number.is_none()) {
        let line = report.line(&draft.span);
        report.problem(
            &backend.span,
            format!(
                "backend {} has no `number`, which {needed_by} (line {line}); give it one",
                backend.label()
            ),
        );
    }
}
