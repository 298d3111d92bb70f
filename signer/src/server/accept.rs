//! The acceptor: TCP in, verified TLS connections out; and the Unix socket, whose peers the kernel vouches for.
//!
//! It is our own because tonic's has no handshake time-out, no connection cap and no way to change certificates. A
//! handshake runs in its own task, so that a peer that stalls in it holds up nobody; and where all places are taken, the
//! oldest handshake gives its own to who comes next, so that who stalls keeps nobody out either. A peer without a
//! certificate comes through and is answered UNAUTHENTICATED by the service, as the contract has it; a certificate that
//! does not verify ends in a TLS alert.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixListener},
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    connection::{Connection, Stream, Tls},
    handshake::{Failure, Kind},
    identity::Peer,
    live::Live,
};
use crate::{outside::Outside, telemetry::Metrics};

/// Connections whose handshake is done and that wait for the server to take them.
const WAITING: usize = 64;
/// Bytes that a socket takes beyond what is on the line. Without a bound it takes megabytes, and nobody would know whether a
/// slow reader has them.
const UNSENT: u32 = 256 << 10;

/// How long somebody is listened to whose handshake has failed, and how much: a socket that is closed before it has read all that
/// has come answers with RST, which takes the alert with it that says why.
const LEAVE: Duration = Duration::from_secs(2);
const LAST_WORDS: u64 = 64 << 10;

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
    /// Takes a place for somebody whom nobody knows yet, where there are fewer than `most` in all.
    fn take(self: &Arc<Self>, most: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= most {
            return None;
        }
        let identity: Arc<str> = "".into();
        *taken.entry(Arc::clone(&identity)).or_default() += 1;
        drop(taken);
        Some(Place {
            places: Arc::clone(self),
            identity,
        })
    }
}

impl Place {
    /// The place of an identity that is known now, where it has fewer than `most_of_it`.
    fn known_as(mut self, identity: Arc<str>, most_of_it: usize) -> Option<Self> {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut taken, &self.identity);
        let own = taken.get(&identity).copied().unwrap_or(0);
        let granted = own < most_of_it;
        let identity = if granted { identity } else { Arc::clone(&self.identity) };
        *taken.entry(Arc::clone(&identity)).or_default() += 1;
        drop(taken);
        self.identity = identity;
        granted.then_some(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        give_back(&mut taken, &self.identity);
    }
}

fn give_back(taken: &mut HashMap<Arc<str>, usize>, identity: &str) {
    match taken.get_mut(identity) {
        Some(own) if *own > 1 => *own -= 1,
        _ => drop(taken.remove(identity)),
    }
}

/// Handshakes under way, by the order in which they began.
#[derive(Debug, Default)]
struct Handshakes(Mutex<Begun>);

#[derive(Debug, Default)]
struct Begun {
    next: u64,
    /// The place that each has, and what ends it.
    under_way: BTreeMap<u64, (Place, oneshot::Sender<MakeRoom>)>,
}

/// What a handshake is told that is to end: to hand its place on once its connection is closed. Sooner there would be more
/// connections than places, each with a descriptor.
type MakeRoom = (Place, oneshot::Sender<Place>);

impl Handshakes {
    /// One more; it is to end when the receiver is ready.
    fn begin(&self, place: Place) -> (u64, oneshot::Receiver<MakeRoom>) {
        let (end, ended) = oneshot::channel();
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = begun.next;
        begun.next += 1;
        begun.under_way.insert(number, (place, end));
        (number, ended)
    }

    /// One less. Gives its place back, where nobody else was given it.
    fn end(&self, number: u64) -> Option<Place> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (place, _end) = begun.under_way.remove(&number)?;
        Some(place)
    }

    /// Ends the oldest, for its place.
    async fn make_room(&self) -> Option<Place> {
        let oldest = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .under_way
            .pop_first();
        let (_, (place, end)) = oldest?;
        let (hand_on, handed_on) = oneshot::channel();
        match end.send((place, hand_on)) {
            Ok(()) => handed_on.await.ok(),
            // It has just come to its end by itself.
            Err((place, _)) => Some(place),
        }
    }
}

/// Accepts on both listeners until the receiver of the connections is gone.
pub(super) fn accept(
    tcp: TcpListener,
    unix: Option<UnixListener>,
    live: &Arc<Live>,
    metrics: &Arc<Metrics>,
) -> Connections {
    let (out, connections) = mpsc::channel(WAITING);
    let acceptor = Acceptor {
        live: Arc::clone(live),
        metrics: Arc::clone(metrics),
        places: Arc::default(),
        handshakes: Arc::default(),
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
    metrics: Arc<Metrics>,
    places: Arc<Places>,
    handshakes: Arc<Handshakes>,
    out: mpsc::Sender<io::Result<Connection>>,
}

impl Acceptor {
    async fn accept_tcp(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.out.closed() => return,
            };
            // Where there are no descriptors left, that of the oldest handshake is enough for the next.
            if accepted.is_err() {
                drop(self.handshakes.make_room().await);
            }
            let Some((stream, address)) = accepted_or_pause(accepted).await else {
                continue;
            };
            let settings = self.live.settings();
            // Nobody is known before the handshake: those in it share the cap of all.
            let most = settings.max_connections;
            let mut place = self.places.take(most);
            if place.is_none() {
                tracing::warn!(%address, limit = most, "max_connections reached: the oldest handshake, or who came, is turned away");
                place = self.handshakes.make_room().await.or_else(|| self.places.take(most));
            }
            let Some(place) = place else {
                self.metrics.handshake_failed(Kind::TurnedAway);
                continue;
            };
            let (this, limit) = (self.clone(), settings.handshake_timeout);
            let (number, made_room) = self.handshakes.begin(place);
            tokio::spawn(async move {
                let met = tokio::select! {
                    met = this.meet(stream, address, limit) => Ok(met),
                    make_room = made_room => Err(make_room),
                };
                let place = this.handshakes.end(number);
                match met {
                    Ok(Some((stream, peer))) => this.let_in(stream, peer, place).await,
                    Ok(None) => {}
                    Err(make_room) => {
                        this.metrics.handshake_failed(Kind::TurnedAway);
                        if let Ok((place, hand_on)) = make_room {
                            drop(hand_on.send(place));
                        }
                    }
                }
            });
        }
    }

    /// A handshake to its end; where it fails, that is told.
    async fn meet(&self, stream: TcpStream, address: SocketAddr, limit: Duration) -> Option<(Stream, Peer)> {
        let (failure, stream) = match timeout(limit, self.handshake(stream, address)).await {
            Ok(Ok(met)) => return Some(met),
            Ok(Err((error, stream))) => (Failure::of(&error), stream),
            Err(_) => (Failure::timed_out(limit), None),
        };
        self.metrics.handshake_failed(failure.kind);
        failure.tell(address);
        if let Some(stream) = stream {
            drop(timeout(LEAVE, take_leave(stream)).await);
        }
        None
    }

    /// Where it fails, gives the connection back on which the alert was sent.
    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<(Stream, Peer), (io::Error, Option<TcpStream>)> {
        let ready = stream.set_nodelay(true);
        ready
            .and_then(|()| SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT))
            .map_err(|error| (error, None))?;
        let trust = self.live.trust();
        let accept = TlsAcceptor::from(Arc::clone(&trust.config)).accept(stream);
        let stream = accept
            .into_fallible()
            .await
            .map_err(|(error, stream)| (error, Some(stream)))?;
        let peer = Peer::new(address, stream.get_ref().1.peer_certificates(), trust.generation());
        Ok((Stream::Tls(Box::new(Tls::new(stream))), peer))
    }

    /// Hands a connection on, where its client may have one more; in a place that it has, or finds.
    async fn let_in(&self, stream: Stream, peer: Peer, place: Option<Place>) {
        let settings = self.live.settings();
        let identity: Arc<str> = self.live.access().identity(peer.names.as_deref()).into();
        let (most, most_of_it) = (settings.max_connections, settings.max_connections_per_client);
        let mut place = place.or_else(|| self.places.take(most));
        if place.is_none() {
            place = self.handshakes.make_room().await;
        }
        let Some(place) = place.and_then(|place| place.known_as(Arc::clone(&identity), most_of_it)) else {
            self.metrics.handshake_failed(Kind::TurnedAway);
            tracing::warn!(
                client = %Outside::new(&identity),
                max_connections_per_client = most_of_it,
                max_connections = most,
                "connection refused: it has as many as one client may have, or all have as many as there may be"
            );
            return;
        };
        drop(self.out.send(Ok(self.connection(stream, peer, place))).await);
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
            match stream.peer_cred() {
                Ok(credentials) => {
                    let peer = Peer::local(credentials.uid());
                    self.let_in(Stream::Unix(stream), peer, None).await;
                }
                Err(error) => tracing::warn!(%error, "a local connection without credentials"),
            }
        }
    }

    fn connection(&self, stream: Stream, peer: Peer, place: Place) -> Connection {
        let settings = self.live.settings();
        let age = settings.max_connection_age.map(about);
        Connection::new(stream, peer, place, settings.handshake_timeout, age)
    }
}

/// Says that nothing more comes, and reads until the other end says so too.
async fn take_leave(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(LAST_WORDS), &mut tokio::io::sink()).await?;
    Ok(())
}

/// A time, a tenth more or less: connections that were made together are not made anew together.
fn about(time: Duration) -> Duration {
    time.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// What was accepted; where nothing was, waits a little, so that what cannot be accepted is not tried without a pause.
pub(super) async fn accepted_or_pause<T>(accepted: io::Result<T>) -> Option<T> {
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
    use futures_util::poll;

    use super::*;

    #[test]
    fn a_place_is_counted_for_its_identity_and_for_all() {
        let places = Arc::new(Places::default());
        let take = |name: &str| places.take(3).and_then(|place| place.known_as(name.into(), 2));
        let (first, second) = (take("a").unwrap(), take("a").unwrap());
        assert!(take("a").is_none(), "two of one");
        let third = take("b").unwrap();
        assert!(take("c").is_none(), "three of all");
        drop((first, third));
        assert!(take("a").is_some());
        drop(second);
        let (stranger, another) = (take("").unwrap(), take("").unwrap());
        assert!(take("").is_none(), "two of those without a certificate");
        drop((stranger, another));
        assert!(places.0.lock().unwrap().is_empty());
    }

    #[test]
    fn connections_that_were_made_together_do_not_end_together() {
        let ages: Vec<_> = (0..1000).map(|_| about(Duration::from_secs(100)).as_secs()).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(
            (90..95).contains(least) && (105..=110).contains(most),
            "{least} to {most}"
        );
    }

    #[tokio::test]
    async fn the_oldest_handshake_makes_room_once_its_connection_is_closed() {
        let (places, handshakes) = (Arc::new(Places::default()), Handshakes::default());
        let (first, mut made_room) = handshakes.begin(places.take(2).unwrap());
        let (second, mut stays) = handshakes.begin(places.take(2).unwrap());
        assert!(places.take(2).is_none());
        let mut room = Box::pin(handshakes.make_room());
        assert!(poll!(&mut room).is_pending(), "its connection is open");
        let (place, hand_on) = made_room.try_recv().unwrap();
        assert!(stays.try_recv().is_err(), "the younger goes on");
        assert!(handshakes.end(first).is_none(), "somebody else has it");
        hand_on.send(place).unwrap();
        let place = room.await.unwrap();
        assert!(places.take(2).is_none());
        drop(place);
        // One that has come to its end meanwhile is not waited for.
        drop(stays);
        drop(handshakes.make_room().await.unwrap());
        assert!(handshakes.end(second).is_none());
        assert!(handshakes.make_room().await.is_none());
        assert!(places.0.lock().unwrap().is_empty());
    }
}
