//! The command line: what is asked is parsed here once, and becomes an order for the rooms behind.
//!
//! Exit codes are those of sysexits(3): 64 for a command line or file that cannot be used, 69 where the service is not to be reached; 1 where a
//! threshold or a check failed, 0 where all is well.

mod agent;
mod calibrate;
mod ceiling;
mod compare;
mod null;
mod run;

use clap::{Parser, Subcommand};

/// What this appliance and this HSM carry.
#[derive(Debug, Parser)]
#[command(name = "muhurdar-loadtest", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load a service, verify what comes back, and report
    Run(Box<run::Args>),
    /// What the token itself can do: its raw signing rate by sessions
    Ceiling(ceiling::Args),
    /// Is run B better than run A, or is it noise? Exit 1 where B is worse
    Compare(compare::Args),
    /// Make load for a controller on another machine: `run --agents`
    Agent(agent::Args),
    /// Make the keys with which a controller and its agents know each other
    AgentKeys(agent::KeyArgs),
    /// What the generator itself can do on this machine, against a service that seals nothing
    Calibrate(calibrate::Args),
    /// The form of report.json, as JSON Schema
    Schema,
    /// A service that seals nothing, to try the harness on
    Null(null::Args),
}

/// How a command ended that did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Exit {
    code: u8,
    message: String,
}

#[cfg(test)]
impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Exit {
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Self {
            code: 64,
            message: error.to_string(),
        }
    }

    pub(crate) fn unavailable(error: impl std::fmt::Display) -> Self {
        Self {
            code: 69,
            message: error.to_string(),
        }
    }

    /// Where a PIN was refused, or must not be tried.
    pub(crate) fn permission(error: impl std::fmt::Display) -> Self {
        Self {
            code: crate::ceiling::PERMISSION,
            message: error.to_string(),
        }
    }

    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Self {
            code: 1,
            message: error.to_string(),
        }
    }

    pub(crate) fn interrupted() -> Self {
        // 128 + SIGINT, as shells have it.
        Self {
            code: 130,
            message: "interrupted".to_owned(),
        }
    }
}

/// Parses the process's arguments, does what they say, and ends the process with the exit code, when nothing of it is in a token's module any
/// more.
pub fn main() -> ! {
    muhurdar_pool::exit::run(command)
}

fn command() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // --help and --version are no errors.
            return if error.use_stderr() { 64 } else { 0 };
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Ceiling(args) => ceiling::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Null(args) => null::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::AgentKeys(args) => agent::make_keys(&args),
        Command::Schema => {
            print!("{}", crate::report::schema());
            Ok(())
        }
        Command::Calibrate(args) => calibrate::run(&args),
    };
    match result {
        Ok(()) => 0,
        Err(Exit { code, message }) => {
            eprintln!("muhurdar-loadtest: {message}");
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn read(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let (short, long) = (command.clone().render_help(), command.clone().render_long_help());
        for help in [short.to_string(), long.to_string()] {
            for internal in ["\\", "::", "in-process", "Option<", "PathBuf", "todo", "unwrap", "`["] {
                assert!(!help.contains(internal), "{path} has {internal:?}:\n{help}");
            }
            assert_eq!(help.matches('`').count() % 2, 0, "{path}:\n{help}");
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
