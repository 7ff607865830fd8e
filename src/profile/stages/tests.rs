//! Which way a profile goes.
