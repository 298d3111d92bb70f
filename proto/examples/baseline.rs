//! Writes the wire as this build has it, for `buf breaking`: see tests/tests/wire.rs for when.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    io::stdout().write_all(muhurdar_proto::FILE_DESCRIPTOR_SET)
}
