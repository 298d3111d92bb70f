//! `muhurdar-loadtest ceiling`: the token's raw signing rate, by sessions.

use std::{
    io::{IsTerminal as _, Read as _},
    path::PathBuf,
    time::Duration,
};

use super::Exit;
use crate::{
    ceiling::{self, CeilingError, CeilingOrder, Measured},
    plan, target,
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "It needs a [[token]] of a configuration as the service's own (with --dir: muhurdar.toml in it):\n  \
                  module       the vendor's PKCS#11 library; environment = { ... } is set for it\n  \
                  label        which token of the library; or serial, or slot; none of them where it has one token\n  \
                  pin_file     a file whose first line is the user PIN; relative to the configuration\n  \
                  sessions     the most that are tried without --sessions (4 where it is not set)\n\
                  and in the token a private key that may sign (CKA_SIGN) with its public key or certificate: with --dir that of the first \
                  RSA-2048 taxpayer in taxpayers.json, else the first key that signs. No key label is asked for. The service may run meanwhile, and \
                  then takes its share.\n\n\
                  The PIN is tried once, by the service and by this command alike: where it was refused, the token is latched in \
                  server.state_dir of the configuration (state beside it, where it names none), and nothing logs in (exit code 77) until \
                  `muhurdar token unlatch`."
)]
pub(super) struct Args {
    /// Folder of `muhurdar dev`: its muhurdar.toml names the token
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The server's configuration: its [[token]] are measured
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    token_config: Option<PathBuf>,
    /// The token of this name; the first without
    #[arg(long, value_name = "NAME")]
    token: Option<String>,
    /// Sessions at once, each on a thread: one number or a list; 1, 2, 4 … up to the configured number without
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    sessions: Vec<usize>,
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = |text: &str| plan::duration(text).ok_or("write 2s, 500ms"))]
    duration: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Measure here and not in a child; the certificate of the key to sign with may come on standard input, DER
    #[arg(long, hide = true)]
    in_process: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let config = match (&args.token_config, &args.dir) {
        (Some(config), _) => config.clone(),
        (None, Some(dir)) => {
            let config = dir.join("muhurdar.toml");
            if !config.exists() {
                return Err(Exit::usage(format!(
                    "--dir {}: no muhurdar.toml in it. It is a folder that `muhurdar dev` has made; --token-config FILE names another configuration",
                    dir.display()
                )));
            }
            config
        }
        (None, None) => {
            return Err(Exit::usage(
                "which token? --dir DIR, a folder that `muhurdar dev` has made, or --token-config FILE, a service's configuration; \
                 --help says what it needs in it",
            ));
        }
    };
    let token = ceiling::read_token(&config, args.token.as_deref()).map_err(Exit::usage)?;
    if args.in_process {
        let mut certificate = Vec::new();
        if !std::io::stdin().is_terminal() {
            let _ = std::io::stdin().take(1 << 20).read_to_end(&mut certificate);
        }
        let sessions = args
            .sessions
            .first()
            .copied()
            .unwrap_or_else(|| token.configured_sessions());
        let measured = ceiling::measure_here(&token, &certificate, sessions, args.duration).map_err(failed)?;
        println!("{}", serde_json::to_string(&measured).map_err(Exit::failed)?);
        return Ok(());
    }
    let certificate = args.dir.as_ref().and_then(|dir| {
        let taxpayers = target::read_taxpayers(&dir.join("taxpayers.json"), Some("rsa2048")).ok()?;
        taxpayers.first()?.certificate.as_ref().map(|der| der.to_vec())
    });
    let mut all = Vec::new();
    for sessions in steps(&args.sessions, token.configured_sessions()) {
        let order = CeilingOrder {
            config: config.clone(),
            token: args.token.clone(),
            certificate: certificate.clone(),
            sessions: Some(sessions),
            duration: args.duration,
        };
        let measured = ceiling::measure(&order).map_err(failed)?;
        if !args.json {
            if all.is_empty() {
                println!("    token {}, {}", measured.token, measured.key);
                println!(
                    "    {:>8} {:>14} {:>18} {:>18}",
                    "sessions", "signatures/s", "per session, ms", "CPU/signature, µs"
                );
            }
            println!(
                "    {:>8} {:>14.0} {:>18.2} {:>18.0}",
                measured.sessions,
                measured.sign_per_s,
                measured.sessions as f64 * 1000.0 / measured.sign_per_s.max(1e-9),
                measured.cpu_us_per_sign
            );
        }
        all.push(measured);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all).map_err(Exit::failed)?);
    } else if let Some(knee) = knee(&all) {
        println!("    beyond {} sessions nothing is gained", knee.sessions);
    }
    Ok(())
}

fn failed(error: CeilingError) -> Exit {
    match error {
        CeilingError::Pin(_) => Exit::permission(error),
        error => Exit::unavailable(error),
    }
}

/// What was asked for; otherwise powers of two up to the configured number, and that.
fn steps(asked: &[usize], configured: usize) -> Vec<usize> {
    if !asked.is_empty() {
        return asked.iter().copied().filter(|sessions| *sessions > 0).collect();
    }
    let mut steps: Vec<usize> = std::iter::successors(Some(1_usize), |n| Some(n * 2))
        .take_while(|n| *n < configured)
        .collect();
    steps.push(configured);
    steps
}

/// The fewest sessions within 5 % of the best rate, where more were tried.
fn knee(all: &[Measured]) -> Option<&Measured> {
    let best = all.iter().map(|measured| measured.sign_per_s).fold(0.0, f64::max);
    let knee = all.iter().find(|measured| measured.sign_per_s >= best * 0.95)?;
    (all.iter().any(|measured| measured.sessions > knee.sessions)).then_some(knee)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_double_up_to_the_configured_number() {
        assert_eq!(steps(&[], 6), [1, 2, 4, 6]);
        assert_eq!(steps(&[], 1), [1]);
        assert_eq!(steps(&[3, 0, 9], 6), [3, 9]);
    }

    #[test]
    fn the_knee_is_where_more_sessions_gain_nothing() {
        let measured = |sessions, sign_per_s| Measured {
            token: String::new(),
            key: String::new(),
            sessions,
            sign_per_s,
            cpu_us_per_sign: 0.0,
        };
        let all = [measured(1, 100.0), measured(2, 196.0), measured(4, 200.0)];
        assert_eq!(knee(&all).unwrap().sessions, 2);
        assert!(knee(&all[..2]).is_none());
    }
}
