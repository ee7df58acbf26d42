//! docs/configuration.md, printed from the schema the parser reads by.

use crate::schema::{self, Kind, Section, Without};
use crate::table::describe;

const EXAMPLE: &str = include_str!("../../../docs/weft.example.toml");

/// The whole page. `cargo xtask` writes it to docs/configuration.md; a test holds the two together.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Generated from dataplane/config/src/schema.rs by `cargo xtask docs`. Do not edit. -->\n\n",
    );
    page.push_str(schema::FILE.meaning);
    page.push_str(
        "\n`weftctl check FILE` names every mistake with file, line and column, without a running Weft.\n\
         `weft-ctrlplane` reads the file again on SIGHUP; a bad file changes nothing. `[dataplane]` is read once, \
         when `weft-dataplane` starts.\n\n## Example\n\n```toml\n",
    );
    page.push_str(EXAMPLE);
    page.push_str("```\n\n## Keys\n");
    section(&schema::FILE, &mut page);
    page
}

fn section(section: &Section, page: &mut String) {
    if !section.header.is_empty() {
        page.push_str(&format!("\n### `{}`\n\n{}\n", section.header, section.meaning));
        page.push_str("\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for key in section.keys {
            let kind = cell(&describe(key.kind));
            page.push_str(&format!(
                "| `{}` | {kind} | {} | {} |\n",
                key.name,
                default(key.default),
                cell(key.meaning)
            ));
        }
    }
    for key in section.keys {
        if let Kind::Table(below) | Kind::Tables(below) = key.kind
            // The keys of [[vip.backend]] are those of [[pool.backend]], printed there.
            && below.header != schema::vip::VIP_BACKEND.header
        {
            self::section(below, page);
        }
    }
}

fn default(default: Without) -> String {
    match default {
        Without::Required => "required".to_owned(),
        Without::Integer(number) => format!("`{number}`"),
        Without::Flag(flag) => format!("`{flag}`"),
        Without::Text(text) => format!("`\"{text}\"`"),
        Without::List(word) => format!("`[\"{word}\"]`"),
        Without::Otherwise(sentence) => cell(sentence),
    }
}

/// A cell of a table must not end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
