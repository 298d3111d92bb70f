//! The acceptor: TCP in, verified TLS connections out; and the Unix socket, whose peers the kernel vouches for.
//!
//! It is our own because tonic's has no handshake time-out, no connection cap and no way to change certificates. A
//! handshake runs in its own task, so that a peer that stalls in it holds up nobody; a peer without a certificate comes
//! through and is answered UNAUTHENTICATED by the service, as the contract has it; a certificate that does not verify
//! ends in a TLS alert.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    connection::{Connection, Stream, Tls},
    identity::Peer,
    live::Live,
};

/// Connections whose handshake is done and that wait for the server to take them.
const WAITING: usize = 64;
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Where finished handshakes go.
pub(super) type Connections = mpsc::Receiver<io::Result<Connection>>;

/// Connections by identity; those whose peer has none, or is not known yet, have the empty one.
#[derive(Debug, Default)]
struct Places(Mutex<HashMap<Arc<str>, usize>>);

/// A connection's place under the caps; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    identity: Arc<str>,
}

impl Places {
    /// Takes a place, where there are fewer than `most` in all and, of this identity, fewer than `most_of_it`.
    fn take(self: &Arc<Self>, identity: Arc<str>, most: usize, most_of_it: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&identity).copied().unwrap_or(0);
        if own >= most_of_it || taken.values().sum::<usize>() >= most {
            return None;
        }
        taken.insert(Arc::clone(&identity), own + 1);
        drop(taken);
        Some(Place {
            places: Arc::clone(self),
            identity,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.identity) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.identity)),
        }
    }
}

/// Accepts on both listeners until the receiver of the connections is gone.
pub(super) fn accept(tcp: TcpListener, unix: Option<UnixListener>, live: &Arc<Live>) -> Connections {
    let (out, connections) = mpsc::channel(WAITING);
    let acceptor = Acceptor {
        live: Arc::clone(live),
        places: Arc::default(),
        out,
    };
    if let Some(listener) = unix {
        tokio::spawn(acceptor.clone().accept_unix(listener));
    }
    tokio::spawn(acceptor.accept_tcp(tcp));
    connections
}

#[derive(Debug, Clone)]
struct Acceptor {
    live: Arc<Live>,
    places: Arc<Places>,
    out: mpsc::Sender<io::Result<Connection>>,
}

impl Acceptor {
    async fn accept_tcp(self, listener: TcpListener) {
        let mut turned_away = TurnedAway::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.out.closed() => return,
            };
            let Some((stream, address)) = accepted_or_pause(accepted).await else {
                continue;
            };
            let settings = self.live.settings();
            // Nobody is known before the handshake: those in it share the cap of all.
            let Some(place) = self
                .places
                .take("".into(), settings.max_connections, settings.max_connections)
            else {
                if let Some(connections) = turned_away.one_more(Instant::now()) {
                    let limit = settings.max_connections;
                    tracing::warn!(connections, last = %address, limit, "refused: max_connections reached");
                }
                continue;
            };
            let (this, limit) = (self.clone(), settings.handshake_timeout);
            tokio::spawn(async move {
                match timeout(limit, this.handshake(stream, address, place)).await {
                    Ok(Ok(connection)) => drop(this.out.send(Ok(connection)).await),
                    Ok(Err(error)) => tracing::info!(%address, %error, "TLS handshake failed"),
                    Err(_) => tracing::info!(%address, ?limit, "TLS handshake timed out"),
                }
            });
        }
    }

    async fn handshake(&self, stream: TcpStream, address: SocketAddr, before: Place) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        let trust = self.live.trust();
        let stream = TlsAcceptor::from(Arc::clone(&trust.config)).accept(stream).await?;
        let peer = Peer::new(address, stream.get_ref().1.peer_certificates(), trust.generation());
        drop(before);
        let place = self.place_for(&peer)?;
        Ok(self.connection(Stream::Tls(Box::new(Tls::new(stream))), peer, place))
    }

    async fn accept_unix(self, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.out.closed() => return,
            };
            let Some((stream, _)) = accepted_or_pause(accepted).await else {
                continue;
            };
            let taken = stream.peer_cred().and_then(|credentials| {
                let peer = Peer::local(credentials.uid());
                Ok((self.place_for(&peer)?, peer))
            });
            match taken {
                Ok((place, peer)) => {
                    let connection = self.connection(Stream::Unix(stream), peer, place);
                    drop(self.out.send(Ok(connection)).await);
                }
                Err(error) => tracing::warn!(%error, "local connection refused"),
            }
        }
    }

    fn place_for(&self, peer: &Peer) -> io::Result<Place> {
        let settings = self.live.settings();
        let identity: Arc<str> = self.live.access().identity(peer.names.as_deref()).into();
        let (most, most_of_it) = (settings.max_connections, settings.max_connections_per_client);
        self.places.take(Arc::clone(&identity), most, most_of_it).ok_or_else(|| {
            io::Error::other(format!(
                "connection refused: \"{identity}\" has {most_of_it} connections (max_connections_per_client), or all have {most}"
            ))
        })
    }

    fn connection(&self, stream: Stream, peer: Peer, place: Place) -> Connection {
        Connection::new(stream, peer, place, self.live.settings().handshake_timeout)
    }
}

/// Connections that were refused because all places were taken. One line a second tells of them: a crowd must not fill the disk
/// as well.
#[derive(Debug, Default)]
struct TurnedAway {
    untold: u64,
    told: Option<Instant>,
}

impl TurnedAway {
    /// How many are to be told of now, where it is time again.
    fn one_more(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

async fn accepted_or_pause<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            // Out of descriptors, or a connection that ended before it began: neither is a reason to stop.
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_of_once_a_second_and_none_of_it_is_forgotten() {
        let (mut turned_away, begin) = (TurnedAway::default(), Instant::now());
        let mut at = |ms| turned_away.one_more(begin + Duration::from_millis(ms));
        assert_eq!(at(0), Some(1), "the first at once");
        assert_eq!((at(1), at(500), at(999)), (None, None, None));
        assert_eq!((at(1000), at(1001)), (Some(4), None));
        assert_eq!(at(60_000), Some(2));
    }

    #[test]
    fn a_place_is_counted_for_its_identity_and_for_all() {
        let places = Arc::new(Places::default());
        let take = |name: &str| places.take(name.into(), 3, 2);
        let (first, second) = (take("a").unwrap(), take("a").unwrap());
        assert!(take("a").is_none(), "two of one");
        let third = take("b").unwrap();
        assert!(take("c").is_none(), "three of all");
        drop((first, third));
        assert!(take("a").is_some());
        drop(second);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
