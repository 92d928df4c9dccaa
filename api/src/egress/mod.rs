//! The log handed on to other systems: transitions as `CloudEvents`, at least once.

#[cfg(feature = "nats")]
pub mod nats;

/// Where transitions are handed on to.
#[derive(Debug, Clone)]
pub struct EgressSettings {
    /// `nats://` or `tls://`, with user and password where they are needed.
    pub url: String,
    /// The stream of `JetStream`; made where there is none.
    pub stream: String,
    /// What subjects begin with; the event's stored name follows.
    pub subject: String,
}
