//! The set as a table that people read.

use super::{Outcome, Row};

/// What was found out about one attack.
pub struct Finding<'a> {
    pub row: &'a Row,
    /// With all guards.
    pub guarded: Outcome,
    /// With one guard, in the order of the row's.
    pub alone: Vec<Option<Outcome>>,
    /// With none.
    pub open: Outcome,
    /// Why it could not succeed here even so.
    pub exception: Option<&'static str>,
    /// In an ordinary user's container, with all guards and with no other
    /// than the user namespace.
    pub rootless: Option<(String, String)>,
}

impl Finding<'_> {
    /// A line for the attack, and one for each of its guards.
    pub fn lines(&self) -> Vec<String> {
        let open = match self.exception {
            Some(reason) => format!("- ({reason})"),
            None => self.open.to_string(),
        };
        let guarded = self.guarded.to_string();
        let mut lines = vec![format!("{:<46} {guarded:<28} {open}", self.row.name)];
        for ((guard, _), outcome) in self.row.guards.iter().zip(&self.alone) {
            let text =
                outcome.as_ref().map_or_else(|| "- (see above)".to_owned(), Outcome::to_string);
            lines.push(format!("    {:<42} {text}", format!("{guard} alone")));
        }
        if let Some((guarded, alone)) = &self.rootless {
            lines.push(format!("    {:<42} {guarded}", "rootless, all guards"));
            if alone != "-" {
                lines.push(format!("    {:<42} {alone}", "rootless, user namespace alone"));
            }
        }
        lines
    }
}
