//! A scene as SVG. Colours are classes with two values each, so a viewer on a dark page shows light lines on dark paper.

use std::fmt::Write as _;

use super::scene::{Anchor, Ink, Item, Label, Scene, Stroke};

/// The text of the SVG file. `title` is what a screen reader says of it.
pub(crate) fn write(scene: &Scene, title: &str) -> String {
    let (width, height) = (scene.width, scene.height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<style>\n",
        escape(title)
    );
    svg.push_str("text { font-family: \"DejaVu Sans\", Verdana, Geneva, sans-serif }\n");
    styles(&mut svg, |ink| ink.rgb().0);
    svg.push_str("@media (prefers-color-scheme: dark) {\n");
    styles(&mut svg, |ink| ink.rgb().1);
    svg.push_str("}\n</style>\n");
    for item in &scene.items {
        draw(&mut svg, item);
        svg.push('\n');
    }
    svg.push_str("</svg>\n");
    svg
}

/// One rule for filling and one for lines, for each ink. Nothing is ever both.
fn styles(svg: &mut String, rgb: impl Fn(Ink) -> u32) {
    for ink in Ink::all() {
        let (class, rgb) = (ink.class(), rgb(ink));
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            ".{class} {{ fill: #{rgb:06x} }} .{class}-line {{ stroke: #{rgb:06x}; fill: none }}"
        );
    }
}

fn draw(svg: &mut String, item: &Item) {
    let _ = match item {
        Item::Rectangle { place: (x, y, width, height), ink } => {
            write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" class=\"{}\"/>",
                ink.class()
            )
        }
        Item::Line { points, ink, width, stroke } => line(svg, points, *ink, *width, *stroke),
        Item::Mark { at: (x, y), radius, ink, hollow } => {
            let class = ink.class();
            // A hollow mark hides the line under it: two circles, the inner one of paper.
            let outer = format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" class=\"{class}\"/>");
            let inner =
                format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" class=\"paper\"/>", radius - 1.5);
            write!(svg, "{outer}{}", if *hollow { inner.as_str() } else { "" })
        }
        Item::Label(text) => label(svg, text),
    };
}

fn line(svg: &mut String, points: &[(f32, f32)], ink: Ink, width: f32, stroke: Stroke) -> std::fmt::Result {
    svg.push_str("<polyline points=\"");
    for (index, (x, y)) in points.iter().enumerate() {
        write!(svg, "{}{x:.1},{y:.1}", if index == 0 { "" } else { " " })?;
    }
    write!(svg, "\" class=\"{}-line\" stroke-width=\"{width:.1}\" stroke-linejoin=\"round\"", ink.class())?;
    if let Some([dash, gap]) = stroke.dashes() {
        write!(svg, " stroke-dasharray=\"{dash} {gap}\"")?;
    }
    svg.write_str("/>")
}

fn label(svg: &mut String, label: &Label) -> std::fmt::Result {
    let (x, y) = label.at;
    let anchor = match label.anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    write!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{:.1}\" text-anchor=\"{anchor}\" class=\"{}\"",
        label.size,
        label.ink.class()
    )?;
    if label.bold {
        svg.write_str(" font-weight=\"bold\"")?;
    }
    if label.upright {
        write!(svg, " transform=\"rotate(-90 {x:.1} {y:.1})\"")?;
    }
    write!(svg, ">{}</text>", escape(&label.text))
}

/// Text as XML wants it. Characters that XML cannot hold become blanks: names come from files.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            character if character.is_control() || character == '\u{fffe}' || character == '\u{ffff}' => {
                safe.push(' ');
            }
            character => safe.push(character),
        }
    }
    safe
}
