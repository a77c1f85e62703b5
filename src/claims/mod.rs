//! What numbers allow to be said: here, whether the instruments themselves
//! are right.

mod selfcheck;

pub use selfcheck::{Check, selfcheck};
