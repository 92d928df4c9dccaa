//! The pictures, as SVG: one function each, on a [`sheet::Sheet`].
//!
//! *Absent here:* numbers. Whatever is drawn stands in the JSON of the same call.

pub mod axis;
pub mod day;
pub mod heatmap;
pub mod occupancy;
pub mod sessions;
pub mod sheet;
pub mod time;

use domain::Status;
use plotters::style::RGBColor;

/// The colour of a status, the same everywhere. From the palette of Okabe and Ito, which people
/// who are colour-blind can tell apart.
pub const fn color(status: Status) -> RGBColor {
    match status {
        Status::Online => RGBColor(0x00, 0x9E, 0x73),
        Status::Away => RGBColor(0xE6, 0x9F, 0x00),
        Status::Busy => RGBColor(0xD5, 0x5E, 0x00),
        Status::Dnd => RGBColor(0x7B, 0x3F, 0x9E),
        Status::Offline => RGBColor(0xD4, 0xD8, 0xDC),
    }
}

/// What is no status: sessions.
pub const SESSIONS: RGBColor = RGBColor(0x56, 0x6B, 0x8A);

/// What a status is called in a legend.
pub const fn label(status: Status) -> &'static str {
    match status {
        Status::Online => "online",
        Status::Away => "away",
        Status::Busy => "busy",
        Status::Dnd => "do not disturb",
        Status::Offline => "offline",
    }
}
