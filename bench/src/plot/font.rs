//! The font of the plots: how wide a text is, and the outlines of its letters.
//!
//! `DejaVu Sans` is linked in, so that a machine without fonts draws the same PNG. An SVG names it, then `Verdana`, which is
//! as wide, and then whatever sans serif there is: most are narrower, so nothing runs into its neighbour.

use ttf_parser::{Face, GlyphId, OutlineBuilder};

/// Upright and bold.
pub(crate) struct Font {
    regular: Face<'static>,
    bold: Face<'static>,
}

impl Font {
    /// The linked-in font.
    ///
    /// # Errors
    ///
    /// When it cannot be read, which a test rules out.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            regular: Face::parse(dejavu::sans::regular(), 0)?,
            bold: Face::parse(dejavu::sans::bold(), 0)?,
        })
    }

    fn face(&self, bold: bool) -> &Face<'static> {
        if bold { &self.bold } else { &self.regular }
    }

    /// The glyph of a character; that of "missing" where the font has none.
    fn glyph(face: &Face<'_>, character: char) -> GlyphId {
        face.glyph_index(character).unwrap_or(GlyphId(0))
    }

    /// Pixels per unit of the font.
    fn scale(face: &Face<'_>, size: f32) -> f32 {
        size / f32::from(face.units_per_em())
    }

    fn advance(face: &Face<'_>, glyph: GlyphId) -> f32 {
        f32::from(face.glyph_hor_advance(glyph).unwrap_or(0))
    }

    /// Width of a text in pixels, without kerning: never less than what a viewer draws.
    pub(crate) fn width(&self, text: &str, size: f32, bold: bool) -> f32 {
        let face = self.face(bold);
        let units: f32 = text.chars().map(|letter| Self::advance(face, Self::glyph(face, letter))).sum();
        units * Self::scale(face, size)
    }

    /// Hands the outline of each letter to `draw`: the builder's curves are in pixels, with the base line's beginning at
    /// (0, 0) and y downwards.
    pub(crate) fn outline(&self, text: &str, size: f32, bold: bool, builder: &mut dyn OutlineBuilder) {
        let face = self.face(bold);
        let scale = Self::scale(face, size);
        let mut pen = 0.0;
        for letter in text.chars() {
            let glyph = Self::glyph(face, letter);
            face.outline_glyph(glyph, &mut Placed { scale, pen, inner: builder });
            pen += Self::advance(face, glyph) * scale;
        }
    }
}

/// Moves and scales a letter's outline to its place in the text.
struct Placed<'a> {
    scale: f32,
    pen: f32,
    inner: &'a mut dyn OutlineBuilder,
}

impl Placed<'_> {
    fn x(&self, x: f32) -> f32 {
        x.mul_add(self.scale, self.pen)
    }

    /// Fonts count upwards, pictures downwards.
    fn y(&self, y: f32) -> f32 {
        -y * self.scale
    }
}

impl OutlineBuilder for Placed<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        self.inner.move_to(self.x(x), self.y(y));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.inner.line_to(self.x(x), self.y(y));
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.inner.quad_to(self.x(x1), self.y(y1), self.x(x), self.y(y));
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.inner.curve_to(self.x(x1), self.y(y1), self.x(x2), self.y(y2), self.x(x), self.y(y));
    }

    fn close(&mut self) {
        self.inner.close();
    }
}
