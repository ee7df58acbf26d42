//! What an agent and a control plane say to each other: lines of JSON, each below [`MAX_LINE`] bytes.
//!
//! ```text
//! agent                                             control plane
//! {"hello":{"version":1}}                  ──▶
//!                                          ◀──  {"welcome":{"version":1,"backends":["b1"],"alive_seconds":10}}
//! {"dump":"begin"} {"event":…}… {"dump":"end"} ──▶
//! {"event":{"kind":"sub_established",…}}   ──▶
//! "alive"                                  ──▶  at least every `alive_seconds`
//!                                          ◀──  "dump_again", where the tables began anew
//!                                          ◀──  {"refused":"why"}, and the connection ends
//! ```
//!
//! Events are those of the kernel's path manager (linux/mptcp.h). A dump says the same as the events would that led to
//! what is there: `created` for each connection, `established` and `sub_established` for its subflows. What it does not
//! say is no more.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version both ends speak.
pub const VERSION: u32 = 1;

/// Longest line, in bytes.
pub const MAX_LINE: usize = 1024;

/// The port control planes listen on, unless configured otherwise.
pub const PORT: u16 = 7443;

/// A token of the server's side, as the balancer reads it in an MP_JOIN. Written as eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u32);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let is_token = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let token = u32::from_str_radix(&text, 16).ok().filter(|_| is_token);
        token.map(Token).ok_or_else(|| serde::de::Error::custom("a token is eight hexadecimal digits"))
    }
}

/// What happened to a connection or a subflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The connection is there; addresses are those it began with. Its first subflow may be gone already.
    Created,
    /// The connection is established, its first subflow too.
    Established,
    /// The connection is no more. It has no addresses.
    Closed,
    /// A further subflow is established.
    SubEstablished,
    /// A subflow is no more.
    SubClosed,
}

/// One event of the kernel, or one record of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// To which connection.
    pub token: Token,
    /// Address and port of this end: a VIP's, where Weft is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Address and port of the other end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<SocketAddr>,
}

/// Where a dump begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// What is not said between this and the end is no more.
    Begin,
    /// All was said.
    End,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromAgent {
    /// The first line.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The backend it speaks for, where no certificate says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<String>,
    },
    /// A dump begins or ends.
    Dump(Mark),
    /// Something happened, or is there.
    Event(Event),
    /// The agent lives.
    Alive,
}

/// What a control plane says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromControlPlane {
    /// The answer to the hello.
    Welcome {
        /// [`VERSION`].
        version: u32,
        /// The names the agent speaks for.
        backends: Vec<String>,
        /// The agent is taken for dead when it says nothing for twice so long.
        alive_seconds: u64,
    },
    /// Say all that is there again: what was said before is lost.
    DumpAgain,
    /// Nothing more is listened to; the sentence says why.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_the_page_says() {
        let event = Event {
            kind: Kind::SubEstablished,
            token: Token(0x0013_6c21),
            local: Some("10.9.9.9:8000".parse().unwrap()),
            remote: Some("[fd00:2::1]:40000".parse().unwrap()),
        };
        let line = |said: FromAgent| serde_json::to_string(&said).unwrap();
        assert_eq!(line(FromAgent::Alive), r#""alive""#);
        assert_eq!(line(FromAgent::Dump(Mark::Begin)), r#"{"dump":"begin"}"#);
        assert_eq!(line(FromAgent::Hello { version: 1, backend: None }), r#"{"hello":{"version":1}}"#);
        assert_eq!(
            line(FromAgent::Event(event)),
            r#"{"event":{"kind":"sub_established","token":"00136c21","local":"10.9.9.9:8000","remote":"[fd00:2::1]:40000"}}"#
        );
        let closed = r#"{"event":{"kind":"closed","token":"00136c21"}}"#;
        let expected = Event { kind: Kind::Closed, token: Token(0x0013_6c21), local: None, remote: None };
        assert_eq!(serde_json::from_str::<FromAgent>(closed).unwrap(), FromAgent::Event(expected));
    }

    #[test]
    fn what_no_end_of_ours_says_is_refused() {
        for line in [
            r#"{"event":{"kind":"closed","token":"136c21"}}"#,
            r#"{"event":{"kind":"closed","token":"+0136c21"}}"#,
            r#"{"event":{"kind":"closed","token":"00136c21","key":"0102030405060708"}}"#,
            r#"{"event":{"kind":"announced","token":"00136c21"}}"#,
            r#"{"dump":"again"}"#,
            r#""alive" "alive""#,
            "",
        ] {
            assert!(serde_json::from_str::<FromAgent>(line).is_err(), "{line}");
        }
    }
}
