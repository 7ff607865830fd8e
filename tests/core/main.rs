//! What stands between an engine's call and the low-level runtime: argv, config.json, process documents, the container's
//! folder, and calls of the program itself.

mod argv;
mod calls;
mod clamp;
mod document;
mod grammar;
mod helping;
mod tricks;
mod units;
