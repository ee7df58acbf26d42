//! What a plot is made of before it is SVG or PNG: lines, marks and text in colours that have roles.
//!
//! Both pictures are drawn from one scene, so they cannot differ. Widths of text are those of the font itself, so
//! nothing overlaps that the layout kept apart.

use super::font::Font;

/// A colour by what it is for. The SVG gives each two values, for light and dark pages; the PNG is on light paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Behind everything; opaque, so that a picture is readable on a page of either kind.
    Paper,
    /// Titles, and what was measured.
    Text,
    /// Axes, conditions, leaders.
    Muted,
    /// Grid lines.
    Grid,
    /// A measured series, by its place. Those past the last colour begin again.
    Series(usize),
    /// What others published.
    Reference,
}

/// Colours of measured series: distinct for colour-blind readers, and dark enough on white, light enough on black.
const SERIES: [(u32, u32); 6] = [
    (0x0b_61_c4, 0x6f_b3_ff),
    (0xc4_55_00, 0xff_a6_57),
    (0x1a_7f_4b, 0x56_d3_97),
    (0x8a_3f_c0, 0xcf_9d_ff),
    (0xb0_1c_5b, 0xff_88_b5),
    (0x5f_6b_00, 0xd3_d0_4f),
];

impl Ink {
    /// All inks of one picture.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Paper, Self::Text, Self::Muted, Self::Grid, Self::Reference]
            .into_iter()
            .chain((0..SERIES.len()).map(Self::Series))
    }

    /// Red, green and blue in one number: on light paper, and on dark.
    pub(crate) fn rgb(self) -> (u32, u32) {
        match self {
            Self::Paper => (0xff_ff_ff, 0x0d_11_17),
            Self::Text => (0x1f_23_28, 0xe6_ed_f3),
            Self::Muted => (0x59_63_6e, 0x9d_a7_b3),
            Self::Grid => (0xe3_e7_ec, 0x26_2c_36),
            Self::Reference => (0x7a_82_8c, 0x8b_94_9e),
            Self::Series(index) => SERIES[index % SERIES.len()],
        }
    }

    /// The name of its class in the SVG.
    pub(crate) fn class(self) -> String {
        match self {
            Self::Paper => "paper".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Muted => "muted".to_owned(),
            Self::Grid => "grid".to_owned(),
            Self::Reference => "reference".to_owned(),
            Self::Series(index) => format!("s{}", index % SERIES.len()),
        }
    }
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stroke {
    /// Without gaps.
    Solid,
    /// Dashes of 6 with gaps of 4.
    Dashed,
    /// Dots.
    Dotted,
}

impl Stroke {
    /// Lengths of dash and gap; nothing for a line without gaps.
    pub(crate) fn dashes(self) -> Option<[f32; 2]> {
        match self {
            Self::Solid => None,
            Self::Dashed => Some([6.0, 4.0]),
            Self::Dotted => Some([1.5, 3.5]),
        }
    }
}

/// Which end of a text is at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// The text begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// One text, in one size and colour.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Label {
    /// Its point: the base line.
    pub(crate) at: (f32, f32),
    pub(crate) text: String,
    pub(crate) size: f32,
    pub(crate) bold: bool,
    pub(crate) ink: Ink,
    pub(crate) anchor: Anchor,
    /// Read from below to above.
    pub(crate) upright: bool,
}

impl Label {
    /// Plain text that begins at a point.
    pub(crate) fn new(at: (f32, f32), size: f32, ink: Ink, text: impl Into<String>) -> Self {
        Self { at, text: text.into(), size, bold: false, ink, anchor: Anchor::Start, upright: false }
    }

    /// The same with another end at its point.
    pub(crate) fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    /// The same in bold.
    pub(crate) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }
}

/// One thing drawn. Later ones lie over earlier ones.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// A filled rectangle: left, top, width, height.
    Rectangle { place: (f32, f32, f32, f32), ink: Ink },
    /// A line through points.
    Line { points: Vec<(f32, f32)>, ink: Ink, width: f32, stroke: Stroke },
    /// A round mark; a hollow one shows paper within.
    Mark { at: (f32, f32), radius: f32, ink: Ink, hollow: bool },
    /// Text.
    Label(Label),
}

/// A picture: its size in pixels, and what is on it.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) width: f32,
    pub(crate) height: f32,
    pub(crate) items: Vec<Item>,
}

impl Scene {
    /// Blank paper.
    pub(crate) fn new(width: f32, height: f32) -> Self {
        let paper = Item::Rectangle { place: (0.0, 0.0, width, height), ink: Ink::Paper };
        Self { width, height, items: vec![paper] }
    }

    /// Draws one more thing.
    pub(crate) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// A straight line.
    pub(crate) fn line(&mut self, from: (f32, f32), to: (f32, f32), ink: Ink, width: f32, stroke: Stroke) {
        self.push(Item::Line { points: vec![from, to], ink, width, stroke });
    }

    /// Text.
    pub(crate) fn label(&mut self, label: Label) {
        self.push(Item::Label(label));
    }
}

/// Breaks words into lines no wider than `width`. A word that is wider alone has a line of its own.
pub(crate) fn wrap(font: &Font, text: &str, size: f32, width: f32) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut() {
            let longer = format!("{line} {word}");
            if font.width(&longer, size, false) <= width {
                *line = longer;
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    lines
}
