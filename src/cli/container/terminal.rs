//! The caller's terminal, while the command has one of its own.
