//! Storage engines and what the schema keeps in them.

pub mod engine;
