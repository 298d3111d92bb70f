//! Where SoftHSM2 is installed.

use std::path::{Path, PathBuf};

/// Places of `libsofthsm2.so` by distribution.
const PLACES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",                   // Debian, Ubuntu, Alpine
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",  // Debian, Ubuntu: multiarch
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", //
    "/usr/lib64/pkcs11/libsofthsm2.so",                  // Fedora, RHEL
    "/usr/lib64/softhsm/libsofthsm2.so",                 // openSUSE
    "/usr/lib/pkcs11/libsofthsm2.so",                    // Arch
    "/usr/local/lib/softhsm/libsofthsm2.so",             // from source; Homebrew on Intel
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",          // Homebrew on Apple silicon
    "/home/linuxbrew/.linuxbrew/lib/softhsm/libsofthsm2.so",
    "/run/current-system/sw/lib/softhsm/libsofthsm2.so", // NixOS
];

/// The places that [`find_softhsm2`] looks at, for the message that it found nothing.
#[must_use]
pub fn softhsm2_places() -> &'static [&'static str] {
    PLACES
}

/// SoftHSM2's library: where `SOFTHSM2_MODULE` says, else in the usual places.
#[must_use]
pub fn find_softhsm2() -> Option<PathBuf> {
    let named = std::env::var_os("SOFTHSM2_MODULE")
        .map(PathBuf::from)
        .filter(|path| path.is_file());
    named.or_else(|| {
        PLACES
            .iter()
            .map(Path::new)
            .find(|path| path.is_file())
            .map(Path::to_owned)
    })
}
