//! What an operator types: a file per subcommand. Exit codes are those of sysexits(3).

mod check;
mod dev;
mod exit;
mod output;
mod seal;
mod serve;
mod signals;
mod token;
mod verify;

use clap::{Parser, Subcommand};
use muhurdar_pool::{exit as end, isolation};

use self::exit::Failure;

/// A sealing service for Turkish e-documents, in front of an HSM.
#[derive(Debug, Parser)]
#[command(name = "muhurdar", version, arg_required_else_help = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 fine, 1 a check failed, 64 usage or bad configuration, 69 unavailable, 77 permission.\n\
                        First steps: muhurdar dev --dir /tmp/muhurdar"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a throw-away appliance with a software token, to try things out
    Dev(dev::Dev),
    /// Run the service
    Serve(serve::Serve),
    /// Is the configuration valid, and is every token reachable and fit?
    Check(check::Check),
    /// The key ceremony: what is on the tokens, and how keys and certificates get there
    Token(token::TokenCommand),
    /// Have documents sealed by a running service
    Seal(seal::Seal),
    /// Verify sealed documents
    Verify(verify::Verify),
}

/// Reads the command line, does what it says, and ends the process with its exit code, when nothing of it is in a token's module any more.
pub fn main() -> ! {
    end::run(command)
}

fn command() -> u8 {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == isolation::SUBCOMMAND) {
        return isolated_module(arguments);
    }
    end_quietly_at_a_closed_pipe();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to standard output; everything else is a mistake in the call.
            drop(error.print());
            return if error.use_stderr() { exit::USAGE } else { exit::FINE };
        }
    };
    let outcome = match cli.command {
        Command::Dev(dev) => dev.run(),
        Command::Serve(serve) => serve.run(),
        Command::Check(check) => check.run(),
        Command::Token(token) => token.run(),
        Command::Seal(seal) => seal.run(),
        Command::Verify(verify) => verify.run(),
    };
    match outcome {
        Ok(()) => exit::FINE,
        Err(failure) => failure.report(),
    }
}

/// `muhurdar check | head`: `println!` panics where nobody reads any more, and a shell's tool ends without a word, as SIGPIPE would end it.
fn end_quietly_at_a_closed_pipe() {
    const SIGPIPE: u8 = 128 + 13;
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let message = panic.payload().downcast_ref::<String>();
        if message.is_some_and(|m| m.starts_with("failed printing to stdout: Broken pipe")) {
            end::now(SIGPIPE);
        }
        report(panic);
    }));
}

/// The child of `isolation = "process"`: for the pool, never for people, and so not in the help.
fn isolated_module(arguments: impl Iterator<Item = std::ffi::OsString>) -> u8 {
    match isolation::child_main(arguments) {
        Ok(()) => exit::FINE,
        Err(error) => Failure::usage(error).report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// What a reader of the help has no use for.
    const INTERNAL: [&str; 8] = [
        "\\",
        "::",
        "isolated-module",
        "Option<",
        "PathBuf",
        "todo",
        "unwrap",
        "`[",
    ];

    fn read(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        for (name, help) in [
            ("-h", command.clone().render_help()),
            ("--help", command.clone().render_long_help()),
        ] {
            let help = help.to_string();
            for word in INTERNAL {
                assert!(!help.contains(word), "{path} {name} has {word:?}:\n{help}");
            }
            assert_eq!(help.matches('"').count() % 2, 0, "{path} {name}:\n{help}");
        }
        assert!(command.get_about().is_some(), "{path} says nothing of itself");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "{path}: {} is not explained", argument.get_id());
            assert!(!help.ends_with('.'), "{path}: {}: {help}", argument.get_id());
        }
        command.get_subcommands().for_each(|command| read(command, &path));
    }

    #[test]
    fn every_help_text_is_for_its_reader() {
        let mut cli = Cli::command();
        cli.build();
        read(&cli, "");
    }
}
