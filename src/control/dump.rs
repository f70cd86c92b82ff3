//! Parts of `/config_dump` (spec admin.md 3).

pub mod certificates;
