//! Figures of a run, as SVG text and PNG bytes from the same drawing.
//!
//! Every figure carries its conditions above and what failed or is missing
//! below, so that it can be shown without its page. It reads summaries and
//! samples and writes no file.

mod arms;
mod axis;
mod canvas;
mod density;
mod ecdf;
mod frame;
mod memory;
mod published;
mod render;
mod scale;
mod stack;
mod waterfall;

#[cfg(test)]
mod tests;

use std::error::Error;

use crate::record::{Experiment, Manifest, Sample};
use crate::stats::Summary;

/// One figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Name of its files without their ending, such as `waterfall-exit`.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// A whole SVG document.
    pub svg: String,
    /// A whole PNG file, twice as many pixels wide as the SVG says.
    pub png: Vec<u8>,
}

/// Why a figure could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// The embedded font.
    #[error("cannot read the embedded font DejaVu Sans")]
    Font,
    /// A drawing step.
    #[error("cannot draw a figure")]
    Draw(#[source] Box<dyn Error + Send + Sync>),
    /// The embedded list of published figures.
    #[error("cannot read the embedded published figures")]
    Published(#[source] Box<toml::de::Error>),
    /// The PNG encoder.
    #[error("cannot encode a figure as PNG")]
    Png(#[source] png::EncodingError),
}

impl ChartError {
    fn draw(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Draw(Box::new(error))
    }
}

/// All figures of a run: for each workload the phases of its start and their
/// distribution, its memory and what that consists of, its density ladder, and
/// its starts among many. An experiment that is not
/// in the plan has no figure; one that could not be measured has a figure that
/// says so.
///
/// # Errors
/// When a figure cannot be drawn or encoded.
pub fn figures(
    manifest: &Manifest,
    summary: &Summary,
    samples: &[Sample],
) -> Result<Vec<Figure>, ChartError> {
    let mut figures = Vec::new();
    let name = |kind: &str, workload: crate::record::Workload| {
        format!("{kind}-{}", workload.to_string().replace('=', "-"))
    };
    for workload in arms::workloads(summary, Experiment::Startup) {
        let drawing = waterfall::Waterfall::new(manifest, summary, workload)?;
        figures.push(render::render(name("waterfall", workload), &drawing)?);
        let drawing = ecdf::Ecdf::new(manifest, summary, samples, workload)?;
        figures.push(render::render(name("startup", workload), &drawing)?);
    }
    for workload in arms::workloads(summary, Experiment::Memory) {
        let drawing = memory::Memory::new(manifest, summary, workload)?;
        figures.push(render::render(name("memory", workload), &drawing)?);
        if let Some(drawing) = stack::stack(manifest, summary, workload)? {
            figures.push(render::render(name("stack", workload), &drawing)?);
        }
    }
    for workload in arms::workloads(summary, Experiment::Density) {
        let drawing = density::density(manifest, summary, workload)?;
        figures.push(render::render(name("density", workload), &drawing)?);
    }
    for workload in arms::workloads(summary, Experiment::Scale) {
        let drawing = scale::scale(manifest, summary, workload)?;
        figures.push(render::render(name("scale", workload), &drawing)?);
    }
    Ok(figures)
}
