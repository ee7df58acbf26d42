//! `weft-bench plot`: a run's figures as SVG and PNG, with its conditions on every picture.
//!
//! [`figures`] chooses rows, [`lines`] says which are one line, [`chart`] lays them out into a [`scene`], [`svg`] and
//! [`png`] write that scene. No plotting crate: `plotters` 0.3 places neither names beside lines nor two sets of
//! colours, and its PNG needs a font library in C. What is left of it, axes and lines, is [`axis`] and a page of
//! [`chart`]; tiny-skia and ttf-parser draw the PNG.

mod axis;
mod chart;
mod figures;
mod font;
mod lines;
mod png;
mod published;
mod scene;
mod svg;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::report::Run;
use font::Font;

/// Draws every plot that a run has rows for, into `out`, which is made if it is not there.
///
/// Returns the files, SVG and PNG of each plot. A file that could not be written whole is not there.
///
/// # Errors
/// The run has no rows for any plot, or a file cannot be written.
pub fn draw(run: &Run, out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let figures = figures::all(run);
    if figures.is_empty() {
        bail!(
            "the run has no rows for a plot: a line needs two rows or more of one figure that differ in flows, tokens, \
             workers, frame size or percentile"
        );
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let font = Font::new()?;
    let mut files = Vec::new();
    for figure in &figures {
        let scene = figure.chart.draw(&font);
        let path = |ending: &str| out.join(format!("{}.{ending}", figure.name));
        for (path, bytes) in [
            (path("svg"), svg::write(&scene, &figure.chart.title).into_bytes()),
            (path("png"), png::write(&scene, &font)?),
        ] {
            replace(&path, &bytes)?;
            files.push(path);
        }
    }
    Ok(files)
}

/// Writes a file beside its place and moves it there.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let written = fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path));
    written
        .inspect_err(|_| {
            // What is left of it is of no use; the error to report is the first one.
            let _ = fs::remove_file(&partial);
        })
        .with_context(|| format!("cannot write {}", path.display()))
}
