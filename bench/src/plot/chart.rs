//! One chart: series over two axes, each named beside its last point, and under them what they were measured with.

use super::axis::{Axis, measured};
use super::font::Font;
use super::scene::{Anchor, Ink, Item, Label, Scene, Stroke, wrap};

/// Width of every picture: a README column shows it at about 85 %.
const WIDTH: f32 = 960.0;
const MARGIN: f32 = 24.0;
/// Height of the field between the axes.
const FIELD: f32 = 400.0;
/// From the left edge to the numbers of the vertical axis: its title.
const BEFORE_NUMBERS: f32 = 42.0;
const TITLE: f32 = 19.0;
const TEXT: f32 = 13.0;
/// Conditions: the smallest text, still read at README width.
const SMALL: f32 = 12.0;
/// Base line to base line.
const LINE: f32 = 17.0;
/// The widest that names beside the field may be.
const NAMES: f32 = 292.0;

/// One measured point: median, and the lowest and highest round where they differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Point {
    /// A point without a spread.
    pub(crate) fn exact(x: f64, y: f64) -> Self {
        Self { x, y, low: y, high: y }
    }
}

/// One line of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// By ascending x.
    pub(crate) points: Vec<Point>,
    pub(crate) ink: Ink,
    pub(crate) stroke: Stroke,
    /// Thick: what the chart is about.
    pub(crate) main: bool,
}

/// A whole picture.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Those last drawn lie on top.
    pub(crate) series: Vec<Series>,
    /// Paragraphs under the chart: conditions, sources.
    pub(crate) notes: Vec<String>,
}

/// Where the field is, and where values are in it.
struct Field<'a> {
    chart: &'a Chart,
    left: f32,
    top: f32,
    width: f32,
}

#[expect(clippy::cast_possible_truncation, reason = "places within a picture")]
fn short(value: f64) -> f32 {
    value as f32
}

impl Field<'_> {
    fn x(&self, value: f64) -> f32 {
        short(self.chart.x.position(value)).mul_add(self.width, self.left)
    }

    fn y(&self, value: f64) -> f32 {
        let down = 1.0 - short(self.chart.y.position(value)).clamp(0.0, 1.0);
        down.mul_add(FIELD, self.top)
    }

    fn place(&self, point: &Point) -> (f32, f32) {
        (self.x(point.x), self.y(point.y))
    }
}

impl Chart {
    /// Draws it.
    pub(crate) fn draw(&self, font: &Font) -> Scene {
        let notes: Vec<Vec<String>> =
            self.notes.iter().map(|note| wrap(font, note, SMALL, WIDTH - 2.0 * MARGIN)).collect();
        let subtitle = wrap(font, &self.subtitle, TEXT, WIDTH - 2.0 * MARGIN);
        let names: Vec<Vec<String>> =
            self.series.iter().map(|series| wrap(font, &series.name, TEXT, NAMES)).collect();
        let beside = names.iter().flatten().map(|name| font.width(name, TEXT, true)).fold(0.0, f32::max);
        let top = MARGIN + 50.0 + LINE * count(subtitle.len());
        let rows = self.series.iter().zip(&names).filter(|(series, _)| series.ink != Ink::Reference);
        let rows = rows.map(|(_, lines)| lines.len()).sum();
        let notes_top = LINE.mul_add(count(rows), top + FIELD + 74.0);
        let lines = count(notes.iter().map(Vec::len).sum());
        let gaps = 6.0 * count(notes.len());
        let mut scene = Scene::new(WIDTH, LINE.mul_add(lines, notes_top) + gaps + MARGIN - LINE);
        let numbers = self.y.ticks.iter().map(|(_, name)| font.width(name, TEXT, false)).fold(0.0, f32::max);
        let left = BEFORE_NUMBERS + numbers + 8.0;
        let field = Field {
            chart: self,
            left,
            top,
            // 30 for the leaders to the names.
            width: WIDTH - left - beside - 30.0 - MARGIN,
        };
        scene.label(Label::new((MARGIN, MARGIN + 16.0), TITLE, Ink::Text, &self.title).bold());
        paragraph(&mut scene, MARGIN + 40.0, TEXT, &subtitle);
        self.axes(&mut scene, &field, font);
        for series in &self.series {
            draw_series(&mut scene, &field, series);
        }
        self.names(&mut scene, &field, &names);
        self.table(&mut scene, &field, &names, font);
        let mut below = notes_top;
        for note in &notes {
            paragraph(&mut scene, below, SMALL, note);
            below += LINE.mul_add(count(note.len()), 6.0);
        }
        scene
    }

    fn axes(&self, scene: &mut Scene, field: &Field<'_>, font: &Font) {
        let (left, right) = (field.left, field.left + field.width);
        let bottom = field.top + FIELD;
        for (value, name) in &self.y.ticks {
            let y = field.y(*value);
            scene.line((left, y), (right, y), Ink::Grid, 1.0, Stroke::Solid);
            scene.label(Label::new((left - 8.0, y + 4.5), TEXT, Ink::Muted, name).anchored(Anchor::End));
        }
        let mut free = f32::NEG_INFINITY;
        for (value, name) in &self.x.ticks {
            let x = field.x(*value);
            scene.line((x, field.top), (x, bottom), Ink::Grid, 1.0, Stroke::Solid);
            centred(scene, &mut free, Label::new((x, bottom + 19.0), TEXT, Ink::Muted, name), font);
        }
        scene.line((left, bottom), (right, bottom), Ink::Muted, 1.0, Stroke::Solid);
        let middle = left + field.width / 2.0;
        scene.label(
            Label::new((middle, bottom + 40.0), TEXT, Ink::Text, &self.x.label).anchored(Anchor::Middle),
        );
        let mut upright = Label::new((MARGIN + 4.0, field.top + FIELD / 2.0), TEXT, Ink::Text, &self.y.label);
        upright.upright = true;
        scene.label(upright.anchored(Anchor::Middle));
    }

    /// The series' names in a column right of the field, as near to their last points as fits, with leaders.
    fn names(&self, scene: &mut Scene, field: &Field<'_>, names: &[Vec<String>]) {
        let wanted: Vec<(f32, f32)> = self
            .series
            .iter()
            .zip(names)
            .map(|(series, lines)| {
                let y = series.points.last().map_or(field.top, |last| field.y(last.y));
                (y, LINE * count(lines.len()))
            })
            .collect();
        let middles = apart(&wanted, field.top - 10.0, field.top + FIELD + 10.0);
        let column = field.left + field.width + 30.0;
        for ((series, lines), middle) in self.series.iter().zip(names).zip(middles) {
            let Some(last) = series.points.last() else {
                continue;
            };
            let (x, y) = field.place(last);
            let edge = field.left + field.width + 6.0;
            scene.push(Item::Line {
                points: vec![(x + 6.0, y), (edge.max(x + 6.0), y), (column - 5.0, middle)],
                ink: if series.ink == Ink::Reference { Ink::Reference } else { series.ink },
                width: 0.7,
                stroke: Stroke::Dotted,
            });
            let first = middle - LINE * (count(lines.len()) - 1.0) / 2.0 + 4.5;
            for (index, line) in lines.iter().enumerate() {
                let at = (column, LINE.mul_add(count(index), first));
                let label = Label::new(at, TEXT, series.ink, line);
                scene.label(if series.main { label.bold() } else { label });
            }
        }
    }

    /// What was measured in numbers: a line for each series, its values under their places on the axis.
    fn table(&self, scene: &mut Scene, field: &Field<'_>, names: &[Vec<String>], font: &Font) {
        let mut base = field.top + FIELD + 64.0;
        let rows = self.series.iter().zip(names).filter(|(series, _)| series.ink != Ink::Reference);
        for (series, name) in rows {
            let mut free = f32::NEG_INFINITY;
            let style = |label: Label| if series.main { label.bold() } else { label };
            for point in &series.points {
                let at = (field.x(point.x), base);
                centred(scene, &mut free, style(Label::new(at, TEXT, series.ink, measured(point.y))), font);
            }
            for line in name {
                let beside = (field.left + field.width + 30.0, base);
                scene.label(style(Label::new(beside, TEXT, series.ink, line)));
                base += LINE;
            }
        }
    }
}

/// Text with its middle at its point, unless it would run into the one before it, which ends at `free`.
fn centred(scene: &mut Scene, free: &mut f32, label: Label, font: &Font) {
    let half = font.width(&label.text, label.size, label.bold) / 2.0;
    if label.at.0 - half >= *free {
        *free = label.at.0 + half + 6.0;
        scene.label(label.anchored(Anchor::Middle));
    }
}

/// Lines of one text, from a base line on.
fn paragraph(scene: &mut Scene, top: f32, size: f32, lines: &[String]) {
    for (index, line) in lines.iter().enumerate() {
        scene.label(Label::new((MARGIN, LINE.mul_add(count(index), top)), size, Ink::Muted, line));
    }
}

/// A series' line, the spread of its rounds and its marks.
fn draw_series(scene: &mut Scene, field: &Field<'_>, series: &Series) {
    let ink = series.ink;
    let width = if series.main { 2.6 } else { 1.5 };
    let places: Vec<(f32, f32)> = series.points.iter().map(|point| field.place(point)).collect();
    if places.len() > 1 {
        scene.push(Item::Line { points: places.clone(), ink, width, stroke: series.stroke });
    }
    for (point, (x, y)) in series.points.iter().zip(places) {
        let (low, high) = (field.y(point.low), field.y(point.high));
        // A spread that its mark would cover is not drawn.
        if low - high > 10.0 {
            scene.line((x, low), (x, high), ink, 1.2, Stroke::Solid);
            for end in [low, high] {
                scene.line((x - 4.0, end), (x + 4.0, end), ink, 1.2, Stroke::Solid);
            }
        }
        let radius = if series.main { 4.5 } else { 3.5 };
        scene.push(Item::Mark { at: (x, y), radius, ink, hollow: series.ink == Ink::Reference });
    }
}

/// Moves middles of given heights apart until none overlap, within `top` and `bottom` if they fit at all, and as little
/// as that takes. The answer is in the order of the question.
fn apart(wanted: &[(f32, f32)], top: f32, bottom: f32) -> Vec<f32> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].0.total_cmp(&wanted[b].0));
    let mut middles: Vec<f32> = wanted.iter().map(|&(middle, _)| middle).collect();
    let mut free = top;
    for &index in &order {
        let half = wanted[index].1 / 2.0;
        middles[index] = middles[index].max(free + half);
        free = middles[index] + half;
    }
    let mut free = bottom;
    for &index in order.iter().rev() {
        let half = wanted[index].1 / 2.0;
        middles[index] = middles[index].min(free - half);
        free = middles[index] - half;
    }
    middles
}

#[expect(clippy::cast_precision_loss, reason = "some dozens")]
fn count(number: usize) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn names_are_moved_apart_and_no_further_than_they_must() {
        let wanted = [(100.0, 17.0), (104.0, 17.0), (300.0, 17.0), (399.0, 34.0)];
        let got = apart(&wanted, 0.0, 400.0);
        for (index, other) in [(0, 1), (1, 2), (2, 3)] {
            let room = (wanted[index].1 + wanted[other].1) / 2.0;
            assert!(got[other] - got[index] >= room - 0.01, "{got:?}");
        }
        assert!((got[0] - 100.0).abs() < 0.01 && (got[2] - 300.0).abs() < 0.01, "{got:?}");
        assert!((got[3] - 383.0).abs() < 0.01, "the last one is kept within: {got:?}");
    }

    #[test]
    fn the_order_of_names_is_that_of_their_points() {
        let got = apart(&[(50.0, 17.0), (10.0, 17.0), (49.0, 17.0)], 0.0, 400.0);
        assert!(got[1] < got[2] && got[2] < got[0], "{got:?}");
    }
}
