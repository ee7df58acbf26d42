//! A scene as PNG: on light paper, opaque, at twice the size in pixels, for screens with fine ones.

use anyhow::Context as _;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, Stroke as Pen, StrokeDash,
    Transform,
};
use ttf_parser::OutlineBuilder;

use super::font::Font;
use super::scene::{Anchor, Ink, Item, Label, Scene};

/// Pixels of the PNG for each of the scene.
const SCALE: f32 = 2.0;

/// The bytes of the PNG file.
///
/// # Errors
///
/// When the picture has no size, or does not fit into memory.
pub(crate) fn write(scene: &Scene, font: &Font) -> anyhow::Result<Vec<u8>> {
    let mut canvas = Canvas {
        pixmap: Pixmap::new(pixels(scene.width), pixels(scene.height)).context("a picture without a size")?,
        font,
    };
    for item in &scene.items {
        canvas.draw(item);
    }
    canvas.pixmap.encode_png().context("cannot encode the PNG")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a picture's size: some thousand pixels"
)]
fn pixels(length: f32) -> u32 {
    (length * SCALE).round() as u32
}

struct Canvas<'a> {
    pixmap: Pixmap,
    font: &'a Font,
}

impl Canvas<'_> {
    fn draw(&mut self, item: &Item) {
        match item {
            Item::Rectangle { place: (x, y, width, height), ink } => {
                if let Some(rectangle) = Rect::from_xywh(*x, *y, *width, *height) {
                    self.pixmap.fill_rect(rectangle, &paint(*ink), at_scale(), None);
                }
            }
            Item::Line { points, ink, width, stroke } => {
                let pen = Pen {
                    width: *width,
                    line_cap: LineCap::Butt,
                    line_join: LineJoin::Round,
                    dash: stroke.dashes().and_then(|dashes| StrokeDash::new(dashes.to_vec(), 0.0)),
                    ..Pen::default()
                };
                let mut path = PathBuilder::new();
                for (index, (x, y)) in points.iter().enumerate() {
                    if index == 0 { path.move_to(*x, *y) } else { path.line_to(*x, *y) }
                }
                if let Some(path) = path.finish() {
                    self.pixmap.stroke_path(&path, &paint(*ink), &pen, at_scale(), None);
                }
            }
            Item::Mark { at, radius, ink, hollow } => {
                self.circle(*at, *radius, *ink);
                if *hollow {
                    self.circle(*at, radius - 1.5, Ink::Paper);
                }
            }
            Item::Label(label) => self.label(label),
        }
    }

    fn circle(&mut self, (x, y): (f32, f32), radius: f32, ink: Ink) {
        if let Some(path) = PathBuilder::from_circle(x, y, radius) {
            self.pixmap.fill_path(&path, &paint(ink), FillRule::Winding, at_scale(), None);
        }
    }

    fn label(&mut self, label: &Label) {
        let mut outline = Outline(PathBuilder::new());
        self.font.outline(&label.text, label.size, label.bold, &mut outline);
        // Blanks alone have no outline.
        let Some(path) = outline.0.finish() else {
            return;
        };
        let width = self.font.width(&label.text, label.size, label.bold);
        let back = match label.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width / 2.0,
            Anchor::End => -width,
        };
        let (x, y) = label.at;
        let turn = if label.upright { Transform::from_rotate(-90.0) } else { Transform::identity() };
        let place = at_scale().pre_translate(x, y).pre_concat(turn).pre_translate(back, 0.0);
        self.pixmap.fill_path(&path, &paint(label.ink), FillRule::Winding, place, None);
    }
}

fn at_scale() -> Transform {
    Transform::from_scale(SCALE, SCALE)
}

fn paint(ink: Ink) -> Paint<'static> {
    let [_, red, green, blue] = ink.rgb().0.to_be_bytes();
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(Color::from_rgba8(red, green, blue, 255));
    paint
}

/// Letters into a path.
struct Outline(PathBuilder);

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.0.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.0.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.0.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.0.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.0.close();
    }
}
