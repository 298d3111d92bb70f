//! Things done to the service while it is loaded: `30s=kill -TERM 4711`.
//!
//! Each is a command for the shell, started at its time of the load and waited for by nobody; when it really started is drawn over the graphs.

use std::{
    process::{Child, Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use crate::{plan, report::Event};

/// A command and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    at: Duration,
    command: String,
}

/// An action that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not an action: write TIME=COMMAND, such as 30s=systemctl reload muhurdar")]
pub struct ActionError(String);

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        let (at, command) = text.split_once('=').ok_or_else(|| ActionError(text.to_owned()))?;
        let at = plan::duration(at.trim()).ok_or_else(|| ActionError(text.to_owned()))?;
        let command = command.trim().to_owned();
        if command.is_empty() {
            Err(ActionError(text.to_owned()))
        } else {
            Ok(Self { at, command })
        }
    }
}

/// The actions of a run, as they come due.
#[derive(Debug)]
pub(crate) struct Timeline {
    left: Vec<Action>,
    running: Vec<Child>,
    pub(crate) events: Vec<Event>,
}

impl Timeline {
    pub(crate) fn new(actions: &[Action]) -> Self {
        let mut left = actions.to_vec();
        // The next one last, where it is taken from.
        left.sort_by_key(|action| std::cmp::Reverse(action.at));
        Self {
            left,
            running: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Starts what is due, `began` being when the load did.
    pub(crate) fn tick(&mut self, began: Instant) {
        while let Some(action) = self.left.pop_if(|action| action.at <= began.elapsed()) {
            let started = Command::new("sh")
                .args(["-c", &action.command])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let what = match started {
                Ok(child) => {
                    self.running.push(child);
                    action.command
                }
                Err(error) => format!("{} (could not be started: {error})", action.command),
            };
            self.events.push(Event {
                at_s: began.elapsed().as_secs_f64(),
                what,
            });
        }
        // Reap what has ended; what goes on goes on.
        self.running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_start_in_their_order_and_only_when_due() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("done").display().to_string();
        let actions = [format!("1h=touch {file}.never"), format!("1ms=touch {file}")];
        let actions: Vec<Action> = actions.iter().map(|text| text.parse().unwrap()).collect();
        let mut timeline = Timeline::new(&actions);
        timeline.tick(Instant::now() - Duration::from_secs(1));
        while !timeline.running.is_empty() {
            timeline.tick(Instant::now());
            std::thread::yield_now();
        }
        assert!(folder.path().join("done").exists());
        assert_eq!(timeline.events.len(), 1);
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
