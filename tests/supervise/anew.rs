//! Generations that are decided anew.

use crate::Test;

pub const TESTS: &[Test] = &[];
