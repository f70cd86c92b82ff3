//! Pure decisions: facts and a snapshot in, a verdict out. Time and randomness are arguments.

pub mod authorize;
pub mod balance;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod inbound;
pub mod missing;
pub mod route;

/// Uniform random source: returns a value in `0..bound` (`bound` > 0).
pub type Random<'a> = &'a mut dyn FnMut(u64) -> u64;
