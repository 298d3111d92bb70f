//! The software token of a throw-away appliance: initialised once, and given a seal and an encryption key for each
//! taxpayer.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressStyle};
use muhurdar_pool::{
    Curve, InitArgs, Pin,
    admin::{self, Generate, Module, Token},
};

use super::{
    Failure, KeyKind, Named, TOKEN_LABEL,
    home::{Home, Taxpayer},
    pki::{self, Authority, Purpose},
};
use crate::{cli::token::token_failure, config::Config, tokens};

/// SoftHSM2's library: where the caller says, else in the usual places.
pub(super) fn find_module(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return match path.exists() {
            true => Ok(path.to_owned()),
            false => Err(Failure::unavailable(format_args!(
                "--module {}: there is no such file",
                path.display()
            ))),
        };
    }
    admin::find_softhsm2().ok_or_else(|| {
        Failure::unavailable(format_args!(
            "the SoftHSM2 library is in none of the usual places ({}). Install it (Debian, Ubuntu: apt-get install \
             softhsm2; Fedora: dnf install softhsm), or say where it is: --module FILE",
            admin::softhsm2_places().join(", ")
        ))
    })
}

/// Makes the token where there is none, and the keys and certificates of the missing taxpayers. `made` hears of each.
pub(super) fn provide(
    home: &Home,
    config: &Config,
    missing: &[Named],
    authority: &Authority,
    mut made: impl FnMut(Taxpayer) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fresh = !home.path("token/initialised").exists();
    if !fresh && missing.is_empty() {
        return Ok(());
    }
    write_token_files(home)?;
    tokens::set_environment(config).map_err(Failure::unavailable)?;
    let first = config
        .tokens
        .first()
        .ok_or_else(|| Failure::usage("muhurdar.toml has no [[token]]"))?;
    let module = Module::open(&first.module, InitArgs::OsLocking).map_err(Failure::unavailable)?;
    if fresh {
        let pins = [home.path("token/so-pin"), home.path("token/pin")].map(Pin::file);
        let [so_pin, pin] = &pins;
        module
            .init_token(None, TOKEN_LABEL, so_pin, pin)
            .map_err(Failure::unavailable)?;
        pki::write(&home.path("token/initialised"), b"")?;
    }
    let token_config = tokens::token_config(first).map_err(Failure::usage)?;
    let token = module
        .log_in(&token_config, &tokens::latches(config))
        .map_err(|e| token_failure(&e))?;
    let progress = progress(missing.len());
    for named in missing {
        made(seal(home, &token, authority, named)?)?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

/// SoftHSM2's configuration and the PINs. The configuration names the folder, which may have moved.
fn write_token_files(home: &Home) -> Result<(), Failure> {
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
        home.path("token/store").display()
    );
    pki::write(&home.path("token/softhsm2.conf"), conf.as_bytes())?;
    for name in ["token/pin", "token/so-pin"] {
        let path = home.path(name);
        if !path.exists() {
            let mut digits = [0; 12];
            aws_lc_rs::rand::fill(&mut digits)
                .map_err(|_| Failure::unavailable("the system gives no random numbers"))?;
            let pin: zeroize::Zeroizing<String> = digits
                .iter()
                .map(|b| char::from(b'0' + b % 10))
                .collect::<String>()
                .into();
            pki::write_secret(&path, pin.as_bytes())?;
        }
    }
    Ok(())
}

/// A taxpayer's seal (`…SIGN0`) and, beside it, the encryption key (`…ENCR0`) that must never seal.
fn seal(home: &Home, token: &Token, authority: &Authority, named: &Named) -> Result<Taxpayer, Failure> {
    let Named { vkn, key } = named;
    let title = format!("Deneme Mükellefi {vkn} Anonim Şirketi");
    let (generate, encryption) = match key {
        KeyKind::Rsa2048 => (Generate::Rsa(2048), Purpose::KeyEncipherment),
        KeyKind::P384 => (Generate::Ec(Curve::P384), Purpose::KeyAgreement),
    };
    let mut pem = PathBuf::new();
    for (suffix, purpose) in [("ENCR0", encryption), ("SIGN0", Purpose::Seal)] {
        let label = format!("{vkn}{suffix}");
        // What a killed run left half done is made anew.
        token.delete(label.as_bytes()).map_err(Failure::unavailable)?;
        let spki = token
            .generate(generate, &label, label.as_bytes())
            .map_err(Failure::unavailable)?;
        let certificate = authority.taxpayer(vkn, &title, purpose, &spki)?;
        token
            .import_certificate(&certificate, &label, label.as_bytes())
            .map_err(Failure::unavailable)?;
        pem = PathBuf::from(format!("certificates/{label}.crt"));
        pki::write(&home.path(&pem), pki::pem(&certificate).as_bytes())?;
    }
    Ok(Taxpayer {
        vkn: vkn.clone(),
        title,
        key_type: key.name().to_owned(),
        certificate: pem,
    })
}

fn progress(seals: usize) -> ProgressBar {
    if seals < 4 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("making keys {bar:40} {pos}/{len} {eta}");
    ProgressBar::new(seals as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
