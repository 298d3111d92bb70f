//! Commands, one per line:
//!
//! ```text
//! latency MIN_US [MAX_US]                 every C_Sign takes so long, evenly distributed
//! stall MS                                no C_Sign is answered for so long from now on
//! slow FUNCTION|* MS                      each call of it takes so much longer; 0 for *: none does
//! trap MS                                 whoever is in the module while its destructors run aborts; a thread's end and the
//!                                         destructors take so long (0: no trap)
//! engines N                               so many at once (0: no limit)
//! canned on|off                           sign once per key and repeat that: no CPU
//! no-read-only on|off                     C_OpenSession wants CKF_RW_SESSION
//! no-locks on|off                         C_Initialize takes no arguments: CKR_CANT_LOCK otherwise
//! rule FUNCTION TIMES|@N|/N|always|PROBABILITY DEED [CODE] [LABEL]
//!                                         DEED: answer CODE, stick CODE, hang, flip, crash; @N: at the Nth call from now, once;
//!                                         /N: at each Nth call; a decimal point makes a probability
//! release                                 calls that hang go on
//! kill-sessions [LABEL]                   the HSM forgets its sessions
//! forget-login [LABEL]                    and its logins
//! restart                                 both, as an HSM that was switched off and on
//! channel CODE                            everything answers CODE until C_Finalize and C_Initialize
//! remove LABEL, return LABEL              the token leaves its slot and comes back
//! cap N [silent]                          sessions per slot; silent: the token does not say so
//! pins N                                  so many wrong PINs lock, with flags on the way; 0: as the real token does
//! clear                                   all of that ends, and what hangs goes on
//! stat                                    calls by function, sessions alive, calls that hang; C_Login is that of all processes where
//!                                         FAULTY_TOKEN_LOGINS names a file to count in
//! ```

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::state::{self, CHANGED, Deed, Rule, State, When, lock};
use crate::trap;

/// Sends one command to a module and waits until it holds.
///
/// # Errors
/// Where nobody listens, or the command is refused.
pub fn send(socket: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{command}")?;
    let mut answer = String::new();
    BufReader::new(stream).take(65_536).read_line(&mut answer)?;
    match answer.trim().strip_prefix("ok") {
        Some(rest) => Ok(rest.trim().to_owned()),
        None => Err(std::io::Error::other(answer)),
    }
}

/// Listens for commands, once per process.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for command in std::env::var("FAULTY_TOKEN_START").unwrap_or_default().split(';') {
            if let Err(why) = obey(command) {
                eprintln!("faulty token: {command:?}: {why}");
            }
        }
        let Some(path) = std::env::var_os("FAULTY_TOKEN_CONTROL") else {
            return;
        };
        // A child that replaces one that crashed finds its socket.
        let _ = std::fs::remove_file(&path);
        match UnixListener::bind(&path) {
            Ok(listener) => {
                std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(&stream)));
            }
            Err(error) => eprintln!("faulty token: cannot listen on {}: {error}", path.display()),
        }
    });
}

fn serve(stream: &UnixStream) {
    let mut lines = BufReader::new(stream).take(65_536);
    let mut line = String::new();
    if lines.read_line(&mut line).is_err() {
        return;
    }
    let answer = match obey(line.trim()) {
        Ok(answer) => format!("ok {answer}"),
        Err(why) => format!("error {why}"),
    };
    // Whoever asked may have gone away.
    let mut stream = stream;
    let _ = writeln!(stream, "{answer}");
}

fn obey(command: &str) -> Result<String, String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let mut state = lock();
    let answer = apply(&mut state, &words);
    drop(state);
    CHANGED.notify_all();
    answer
}

fn number(word: &str) -> Result<u64, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.map_err(|e| format!("{word:?}: {e}"))
}

fn apply(state: &mut State, words: &[&str]) -> Result<String, String> {
    let count = |word: &str| number(word).and_then(|n| usize::try_from(n).map_err(|e| e.to_string()));
    match words {
        [] => {}
        ["latency", least, most @ ..] => {
            let least = Duration::from_micros(number(least)?);
            let most = most
                .first()
                .map_or(Ok(least), |most| number(most).map(Duration::from_micros))?;
            state.latency = (least, most);
        }
        ["slow", "*", "0"] => state.slow.clear(),
        ["slow", function, ms] => state
            .slow
            .push(((*function).to_owned(), Duration::from_millis(number(ms)?))),
        ["trap", ms] => trap::set(number(ms)?),
        ["stall", ms] => state.stalled_until = Some(Instant::now() + Duration::from_millis(number(ms)?)),
        ["engines", n] => state.engines = Some(count(n)?).filter(|n| *n > 0),
        ["canned", on] => state.canned = *on == "on",
        ["no-read-only", on] => state.no_read_only = *on == "on",
        ["no-locks", on] => state.no_locks = *on == "on",
        ["rule", function, when, deed, rest @ ..] => {
            let when = match *when {
                "always" => When::Always,
                when if when.contains('.') => {
                    When::Chance(when.parse().map_err(|_| format!("{when:?} is no probability"))?)
                }
                when => match (when.strip_prefix('@'), when.strip_prefix('/')) {
                    (Some(nth), _) => When::At(number(nth)?),
                    (None, Some(nth)) => When::Every(number(nth)?, number(nth)?),
                    (None, None) => When::Times(number(when)?),
                },
            };
            let (deed, rest) = match (*deed, rest) {
                ("answer", [code, rest @ ..]) => (Deed::Answer(number(code)?), rest),
                ("stick", [code, rest @ ..]) => (Deed::Stick(number(code)?), rest),
                ("hang", rest) => (Deed::Hang, rest),
                ("flip", rest) => (Deed::Flip, rest),
                ("crash", rest) => (Deed::Crash, rest),
                other => return Err(format!("no such deed: {other:?}")),
            };
            let label = rest.first().map(|label| (*label).to_owned());
            state.rules.push(Rule {
                function: (*function).to_owned(),
                label,
                when,
                deed,
            });
        }
        ["release"] => state.releases += 1,
        ["kill-sessions", label @ ..] => kill_sessions(state, label.first().copied()),
        ["forget-login", label @ ..] => forget_logins(state, label.first().copied()),
        ["restart"] => {
            kill_sessions(state, None);
            forget_logins(state, None);
        }
        ["channel", code] => state.channel = Some(number(code)?),
        ["remove", label] => state.removed.push((*label).to_owned()),
        ["return", label] => {
            // What comes back knows nothing of before.
            kill_sessions(state, Some(label));
            forget_logins(state, Some(label));
            state.removed.retain(|removed| removed != label);
        }
        ["cap", n, silent @ ..] => state.cap = Some((count(n)?, silent.is_empty())).filter(|(n, _)| *n > 0),
        ["pins", n] => {
            state.pin_tries = u32::try_from(number(n)?).ok().filter(|n| *n > 0);
            state.wrong_pins.clear();
        }
        ["clear"] => {
            *state = State {
                sessions: std::mem::take(&mut state.sessions),
                labels: std::mem::take(&mut state.labels),
                calls: std::mem::take(&mut state.calls),
                engines_busy: state.engines_busy,
                hanging: state.hanging,
                releases: state.releases + 1,
                finalized: state.finalized,
                random: state.random,
                ..State::default()
            };
        }
        ["stat"] => {
            let alive = state.sessions.values().filter(|session| !session.dead).count();
            let mut counted = state.calls.clone();
            if let Some(logins) = state::logins() {
                counted.insert("C_Login", logins);
            }
            let calls: Vec<_> = counted.iter().map(|(function, n)| format!("{function}={n}")).collect();
            return Ok(format!(
                "sessions={alive} hanging={} {}",
                state.hanging,
                calls.join(" ")
            ));
        }
        other => return Err(format!("no such command: {other:?}")),
    }
    Ok(String::new())
}

fn is(state: &State, slot: u64, label: Option<&str>) -> bool {
    label.is_none_or(|label| state.labels.get(&slot).is_some_and(|of| of == label))
}

fn kill_sessions(state: &mut State, label: Option<&str>) {
    let slots: Vec<u64> = state
        .labels
        .keys()
        .copied()
        .filter(|slot| is(state, *slot, label))
        .collect();
    for session in state
        .sessions
        .values_mut()
        .filter(|session| slots.contains(&session.slot))
    {
        session.dead = true;
    }
}

fn forget_logins(state: &mut State, label: Option<&str>) {
    let slots: Vec<u64> = state
        .labels
        .keys()
        .copied()
        .filter(|slot| is(state, *slot, label))
        .collect();
    state.forgotten_logins.extend(slots);
}
