//! The runtime: runc's command line, for engines.
//!
//! Without the standard library's start-up code, which would ignore SIGPIPE for us and for everything we start.
#![no_main]

/// The program's entry, called by the C library.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: std::ffi::c_int, _argv: *const *const std::ffi::c_char) -> std::ffi::c_int {
    lithify::engine::main(std::env::args_os().skip(1))
}
