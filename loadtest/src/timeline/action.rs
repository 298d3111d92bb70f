//! What can be done to a service, and when: as a line of a script, or as `--at` has it.

use std::{fmt, path::Path, str::FromStr, time::Duration};

use crate::plan;

/// Something done at a time of the load.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// From the beginning of the load, warm-up included: as the graphs count.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

/// What is done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Deed {
    /// The token of this label leaves its slot.
    Fail(String),
    /// It comes back.
    Restore(String),
    /// No signature is made for so long.
    Stall(Duration),
    /// Any other command of the token that misbehaves.
    Token(String),
    /// A signal to the service.
    Signal(String),
    /// SIGTERM to the service, and its start when it has gone.
    Restart,
    /// A command for the shell.
    Run(String),
}

/// What a deed cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// The control socket of a token that misbehaves.
    TokenControl,
    /// The service's process.
    Process,
    /// The service's process, and how to start it again.
    Start,
}

impl Deed {
    /// What it cannot do without.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Fail(_) | Self::Restore(_) | Self::Stall(_) | Self::Token(_) => Needs::TokenControl,
            Self::Signal(_) => Needs::Process,
            Self::Restart => Needs::Start,
            Self::Run(_) => Needs::Nothing,
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(label) => write!(f, "fail {label}"),
            Self::Restore(label) => write!(f, "restore {label}"),
            Self::Stall(time) => write!(f, "stall {time:?}"),
            Self::Token(command) => write!(f, "token {command}"),
            Self::Signal(name) => write!(f, "SIG{name}"),
            Self::Restart => f.write_str("restart"),
            Self::Run(command) => f.write_str(command),
        }
    }
}

/// An action that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// Of `--at`.
    #[error("'{0}' is not an action: write TIME=COMMAND, such as 30s=systemctl reload muhurdar")]
    Command(String),
    /// Of a script.
    #[error(
        "{0}, line {1}: '{2}' is not an action: write a time and one of: fail LABEL, restore LABEL, stall TIME, token COMMAND, \
         signal NAME, restart, run COMMAND; such as: 30s fail muhurdar-dev (LABEL is the token's own label)"
    )]
    Line(String, usize, String),
    /// A script that cannot be read.
    #[error("cannot read the script {0}: {1}")]
    Script(String, std::io::Error),
}

impl FromStr for Action {
    type Err = ActionError;

    /// `TIME=COMMAND`, a command for the shell.
    fn from_str(text: &str) -> Result<Self, ActionError> {
        let wrong = || ActionError::Command(text.to_owned());
        let (at, command) = text.split_once('=').ok_or_else(wrong)?;
        let at = time(at.trim()).ok_or_else(wrong)?;
        match command.trim() {
            "" => Err(wrong()),
            command => Ok(Self {
                at,
                deed: Deed::Run(command.to_owned()),
            }),
        }
    }
}

/// Reads a script: an action per line, `#` opens a comment.
///
/// # Errors
/// The first line that is none.
pub fn read_script(path: &Path) -> Result<Vec<Action>, ActionError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ActionError::Script(name.clone(), error))?;
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        (!line.is_empty()).then_some((index + 1, line))
    });
    lines
        .map(|(number, line)| parse(line).ok_or_else(|| ActionError::Line(name.clone(), number, line.to_owned())))
        .collect()
}

fn parse(line: &str) -> Option<Action> {
    let (at, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    let (verb, object) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let object = object.trim();
    let named = (!object.is_empty()).then(|| object.to_owned());
    let deed = match verb {
        "fail" => Deed::Fail(named?),
        "restore" => Deed::Restore(named?),
        "stall" => Deed::Stall(plan::duration(object)?),
        "token" => Deed::Token(named?),
        "signal" => Deed::Signal(signal(&named?)?),
        "restart" if object.is_empty() => Deed::Restart,
        "run" => Deed::Run(named?),
        _ => return None,
    };
    Some(Action { at: time(at)?, deed })
}

/// `HUP` of `HUP`, `SIGHUP`, `sighup`.
fn signal(name: &str) -> Option<String> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    ["HUP", "TERM", "INT", "USR1", "USR2", "STOP", "CONT", "KILL"]
        .contains(&name)
        .then(|| name.to_owned())
}

fn time(text: &str) -> Option<Duration> {
    if matches!(text, "0" | "0s") {
        return Some(Duration::ZERO);
    }
    plan::duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_line_by_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = "# the bad day\n30s fail slot-1\n\n60s restore slot-1 # again\n65s stall 5s\n70s token latency 3000\n\
                      75s signal sighup\n90s restart\n0s run echo a b\n";
        std::fs::write(file.path(), script).unwrap();
        let found = read_script(file.path()).unwrap();
        let said: Vec<String> = found.iter().map(|action| action.deed.to_string()).collect();
        assert_eq!(
            said,
            [
                "fail slot-1",
                "restore slot-1",
                "stall 5s",
                "token latency 3000",
                "SIGHUP",
                "restart",
                "echo a b"
            ]
        );
        assert_eq!((found[0].at.as_secs(), found[6].at.as_secs()), (30, 0));
        for bad in [
            "soon fail x",
            "30s fail",
            "30s explode",
            "30s signal 9",
            "30s restart now",
            "30s stall long",
        ] {
            std::fs::write(file.path(), format!("1s restart\n{bad}\n")).unwrap();
            let error = read_script(file.path()).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains("fail LABEL"), "{error}");
        }
    }

    #[test]
    fn what_is_no_action_says_how_to_write_one() {
        for text in ["", "30s", "soon=ls", "30s="] {
            assert!(
                text.parse::<Action>().unwrap_err().to_string().contains("TIME=COMMAND"),
                "{text}"
            );
        }
    }
}
