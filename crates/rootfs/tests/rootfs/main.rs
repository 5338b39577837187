//! Tests of the tar reader and the merge through the crate's public API.

mod builder;
mod gnu_tar;
mod image;
mod limits;
mod metadata;
mod model;
mod ours;
mod property;
mod reader;
mod restart;
mod robustness;
mod rules;
