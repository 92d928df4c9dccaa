//! People in numbers: tables, files and pictures for analysts. Everybody is as others were shown
//! them, but a person's day to those who may see the truth of it.
//!
//! - [`params`]: windows, zones, buckets and forms, and their limits; [`answer`]: in those forms
//! - [`occupancy`], [`heatmap`], [`time`], [`sessions`], [`day`]: the calls
//! - [`charts`]: the pictures

pub mod answer;
pub mod charts;
pub mod day;
pub mod heatmap;
pub mod occupancy;
pub mod params;
pub mod sessions;
pub mod time;

use crate::auth::Role;

/// Who may ask about people in numbers.
pub const READERS: &[Role] = &[Role::Analyst, Role::Auditor, Role::Admin];
