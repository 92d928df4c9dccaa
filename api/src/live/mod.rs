//! The calls of the contract's *Live* table. Handlers parse, send, answer.

pub mod groups;
pub mod messages;
