//! What is found in real databases, held against what plain SQL says differs.

mod examples;
mod hostile;
mod property;
mod random;
pub(crate) mod support;
