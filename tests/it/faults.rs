//! What happens when things break: the real binary as a process, and real signals.
//!
//! - `kills`: the server and its PostgreSQL, `kill -9`, under load
//! - `start`: first and second start, accounts, wrong usage, the end
//! - `commands`: the other commands, beside a server and without
//! - `nodes`: several of them, of which some stop, die or all are away
//! - `answers`: a line to the database that breaks
//! - `disk`: a disk that is full
//! - `overload`: too much at a time, and clients that dawdle
//! - `watchers`, `herd`, `crowd`: live feeds by the thousand, while nodes are killed and come back,
//!   all at once, or beside idlers and vandals. `ROLLCALL_TEST_RACES=10000` is their full size

mod answers;
mod commands;
mod crowd;
mod disk;
mod herd;
mod kills;
mod nodes;
mod overload;
mod start;
mod watchers;
