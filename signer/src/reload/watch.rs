//! When to reload: SIGHUP, or a file that is not what it was. The tokens are read again at SIGHUP, and when a command beside the
//! service announces that it has changed something there.
//!
//! Files are looked at every two seconds, and not watched by inotify: certificates arrive by rename, by symbolic links that
//! are swapped (Kubernetes), on file systems that send no events; a look finds all of that, and costs a few stat calls.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use tokio::{
    signal::unix::Signal,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::Reloader;
use crate::notify::Notifier;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// What tells a file from its successor; none where there is none.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Reloads until `end`, and tells the service manager. `hangup` is SIGHUP; one that came before this began is not forgotten.
pub(crate) async fn watch(mut reloader: Reloader, notifier: Notifier, mut hangup: Signal, end: CancellationToken) {
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What is in force, and what was seen at the last look.
    let mut in_force = stamps(reloader.files()).await;
    let mut seen = in_force.clone();
    let mut announced = stamps(vec![reloader.announcement()]).await;
    loop {
        let now = tokio::select! {
            () = end.cancelled() => return,
            Some(()) = hangup.recv() => {
                tracing::info!("SIGHUP: reading the tokens and the configuration");
                announced = stamps(vec![reloader.announcement()]).await;
                reloader.read_tokens().await;
                stamps(reloader.files()).await
            }
            _ = looks.tick() => {
                let announcement = stamps(vec![reloader.announcement()]).await;
                if announcement != std::mem::replace(&mut announced, announcement.clone()) {
                    tracing::info!("something was changed on a token: reading the tokens");
                    reloader.read_tokens().await;
                }
                let now = stamps(reloader.files()).await;
                // Somebody may be in the middle of writing them: what is read is what has stayed for an interval.
                let settled = now == std::mem::replace(&mut seen, now.clone());
                if now == in_force || !settled {
                    continue;
                }
                tracing::info!("a file has changed: reading the configuration");
                now
            }
        };
        let reloading = notifier.reloading();
        reloader.reload().await;
        drop(reloading);
        // Of the files that are named now; one that changed while it was read is looked at again.
        in_force = if now.iter().map(|(path, _)| path).eq(&reloader.files()) {
            now
        } else {
            stamps(reloader.files()).await
        };
        seen.clone_from(&in_force);
    }
}

async fn stamps(files: Vec<PathBuf>) -> Vec<(PathBuf, Stamp)> {
    let look = move || {
        let stamped = files.into_iter().map(|path| {
            let stamp = fs::metadata(&path).ok();
            let stamp = stamp.map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
            (path, stamp)
        });
        stamped.collect()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}
