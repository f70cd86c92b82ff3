//! Views of the process for `/config_dump` (spec: admin.md 3).

pub mod certificates;
pub mod config;
pub mod connections;
pub mod state;
