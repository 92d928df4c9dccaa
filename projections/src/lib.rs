//! Everything PostgreSQL: the log and the one way into it, and what follows it.
//!
//! *Absent here, on purpose:* rules (they are in `domain`), HTTP and the node's wall clock. Nothing
//! outside this crate and the tests knows SQL.
//!
//! In reading order:
//! - [`realm`]: one database = one log; what the server calls
//! - [`shared`]: what the parts of a node share
//! - [`db`]: connections, roles and migrations
//! - [`clock`]: the database's clock, as well as a node can know it
//! - [`store`]: cqrs-es' `EventStore` over our log, and the ten-line `execute`
//! - [`queue`]: what waits before the log; [`batch`] and `columns`: what one call of `append`
//!   carries; [`appender`]: the one writer of a node
//! - [`roster`]: everybody's present in memory; [`tail`]: keeps it up with other nodes
//! - [`load`]: users read from the database; [`names`]: outside names and their numbers
//! - [`policy`]: the event-sourced policy and its relay into the log
//! - [`history`]: what was, read from the log; [`spans`]: the same as intervals
//! - [`follow`]: what follows the log; [`views`]: the SQL of each view
//! - [`health`]: whether all of it is consistent
//! - [`repair`]: what is made from the log, made again; [`retention`]: heartbeats past their time
//! - [`log`]: the log, filtered, page by page
//! - [`analytics`]: people in numbers
//! - [`present`]: the present for whoever is no node
//! - [`what_if`]: history under another policy, beside the views
//! - [`due`]: what the sweeper looks for; [`leaves`]: partitions of the log
//! - [`revocation`]: tokens no longer believed
//! - [`groups`]: who belongs to which; [`messages`]: what is sent and waits; [`mailman`]: hands it
//!   to whoever is live on this node
//! - [`feed`]: the log's transitions for live feeds; [`hint`]: nodes wake each other
//! - [`holders`]: which connection has a session; [`ticket`]: what stands for a token, once
//! - [`webhooks`]: endpoints that are told of the log; [`deliveries`]: what they are told;
//!   [`automation`]: which rule of the policy is due for whom; [`egress`]: how far the log
//!   has been handed on

pub mod analytics;
pub mod appender;
pub mod automation;
pub mod batch;
pub mod clock;
pub(crate) mod columns;
pub mod db;
pub mod deliveries;
pub mod due;
pub mod egress;
pub mod error;
pub mod feed;
pub mod follow;
pub mod groups;
pub mod health;
pub mod hint;
pub mod history;
pub mod holders;
pub mod leaves;
pub mod load;
pub mod log;
pub mod mailman;
pub mod messages;
pub mod names;
pub mod policy;
pub mod present;
pub mod queue;
pub mod realm;
pub mod repair;
pub mod retention;
pub mod revocation;
pub mod roster;
pub mod shared;
pub mod spans;
pub mod store;
pub mod tail;
pub mod ticket;
pub mod views;
pub mod webhooks;
pub mod what_if;

pub use error::Error;
pub use realm::{Realm, RealmOptions};
pub use store::{Asked, Executed, Receipt};
