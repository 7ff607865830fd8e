//! The CRI tests as a target of their own.
mod cri;
