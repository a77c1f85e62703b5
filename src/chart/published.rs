//! Figures of others, drawn as context. They come from `report/published.toml`,
//! which names the source of each.

use serde::Deserialize;

use super::ChartError;

const TEXT: &str = include_str!("../../report/published.toml");

/// All of them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    /// Starts of the n-th instance.
    pub(super) start: Vec<Start>,
    /// Memory of a monitor beside its guest's.
    pub(super) overhead: Vec<Overhead>,
}

/// Points of a curve that a source states.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    pub(super) name: String,
    /// Which instance, and nanoseconds until it ran.
    pub(super) points: Vec<(f64, f64)>,
    pub(super) source: String,
    pub(super) hardware: String,
}

/// A monitor's memory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overhead {
    pub(super) name: String,
    pub(super) bytes: f64,
    pub(super) source: String,
    pub(super) hardware: String,
}

/// Reads the file.
pub(super) fn published() -> Result<Published, ChartError> {
    toml::from_str(TEXT).map_err(|error| ChartError::Published(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_figure_has_its_source_and_hardware() {
        let published = published().expect("reads");
        let named = |source: &str, hardware: &str| source.len() > 10 && hardware.len() > 10;
        assert!(published.start.len() >= 3 && published.overhead.len() >= 3);
        for curve in &published.start {
            assert!(named(&curve.source, &curve.hardware), "{}", curve.name);
            assert!(curve.points.windows(2).all(|pair| pair[0].0 < pair[1].0), "{}", curve.name);
        }
        for overhead in &published.overhead {
            assert!(overhead.bytes > 0.0 && overhead.source.len() > 10, "{}", overhead.name);
        }
    }
}
