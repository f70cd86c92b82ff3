//! client_role
