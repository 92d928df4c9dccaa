//! What analysts read: the schema `analytics`, its calls, its files and its pictures.

mod dashboard;
mod day;
mod forms;
mod numbers;
mod past;
mod schema;
