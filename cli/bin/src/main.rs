//! `berth`: the command line.

mod template;

fn main() {}
