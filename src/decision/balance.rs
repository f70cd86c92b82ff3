//! Picks one endpoint of a service (spec: routing.md 4).
