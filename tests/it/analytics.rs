//! What analysts read: the schema `analytics`, its calls, its files and its pictures.

mod schema;
