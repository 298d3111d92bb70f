//! Mühürdar.

fn main() {}
