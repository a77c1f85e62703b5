//! The marks of one instance on the host's clock.

use serde::{Deserialize, Serialize};

use crate::record::Mark;

/// When each mark happened, in nanoseconds on `CLOCK_MONOTONIC`, in the order
/// in which they were stamped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline(Vec<(Mark, u64)>);

impl Timeline {
    /// Records a mark; only the first time counts.
    pub fn stamp(&mut self, mark: Mark, at: u64) {
        if self.at(mark).is_none() {
            self.0.push((mark, at));
        }
    }

    /// When a mark happened.
    #[must_use]
    pub fn at(&self, mark: Mark) -> Option<u64> {
        self.0.iter().find(|(stamped, _)| *stamped == mark).map(|(_, at)| *at)
    }

    /// Nanoseconds from one mark to another, when both happened in that order.
    #[must_use]
    pub fn between(&self, from: Mark, to: Mark) -> Option<u64> {
        self.at(to)?.checked_sub(self.at(from)?)
    }

    /// All marks with their moments.
    pub fn marks(&self) -> impl Iterator<Item = (Mark, u64)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stamp_counts_and_differences_need_both() {
        let mut timeline = Timeline::default();
        timeline.stamp(Mark::Request, 100);
        timeline.stamp(Mark::Ready, 350);
        timeline.stamp(Mark::Ready, 900);
        assert_eq!(timeline.between(Mark::Request, Mark::Ready), Some(250));
        assert_eq!(timeline.between(Mark::Ready, Mark::Request), None);
        assert_eq!(timeline.between(Mark::Request, Mark::Gone), None);
    }
}
