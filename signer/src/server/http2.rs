//! HTTP/2 over the connections that the acceptor hands on, each in a task of its own: it ends when its peer has gone, or, at the
//! end of all, when its peer has read what it asked for.
//!
//! It is our own because tonic's server answers deadlines itself, before anybody of ours can say what they are, and lets go of
//! all connections at the same time.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use super::{MAX_HEADERS, accept::Connections, connection::Connection};
use crate::{admission::STREAM_WINDOW, config, trace};

/// HTTP/2 windows and frames that large documents pass in few steps: measured, see docs/performance.md. What may lie unread in them
/// is counted by call ([`admission`](crate::admission)), so that of a connection is for many calls at once.
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;
const MAX_FRAME: u32 = 256 << 10;
/// Calls of one connection at a time.
const MAX_STREAMS: u32 = 1024;
/// How much larger than it may be a call's header list can be before HTTP/2 itself refuses it, without a status of gRPC's.
const ROOM_TO_REFUSE: u32 = 4;
/// How long a connection that owes nothing may take to close, at the end. Graceful shutdown of HTTP/2 can wait for ever on a
/// half-open one (hyperium/hyper#4170).
const GOODBYE: Duration = Duration::from_secs(2);

/// As the configuration has it.
pub(super) fn builder(server: &config::Server) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS * ROOM_TO_REFUSE)
        .keep_alive_interval(server.keep_alive_interval)
        .keep_alive_timeout(server.keep_alive_timeout);
    builder
}

/// Serves all that come until `end`; then no more, and those that are there until they owe nothing. Dropped, it cuts them off.
pub(super) async fn serve<S>(
    builder: http2::Builder<TokioExecutor>,
    mut connections: Connections,
    service: S,
    end: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => break,
            Some(_) = served.join_next() => {}
            came = connections.recv() => match came {
                Some(Ok(connection)) => {
                    served.spawn(one(builder.clone(), connection, service.clone(), end.clone()));
                }
                // One that failed is nobody's.
                Some(Err(_)) => {}
                None => break,
            }
        }
    }
    drop(connections);
    while served.join_next().await.is_some() {}
}

async fn one<S>(builder: http2::Builder<TokioExecutor>, connection: Connection, service: S, end: CancellationToken)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let (peer, line, age) = (connection.peer(), connection.line(), connection.age());
    let (place, from) = (Arc::clone(&peer.place), (peer, Arc::clone(&line)));
    let service = service.map_request(move |mut request: Request<Incoming>| {
        let (peer, line) = &from;
        request.extensions_mut().insert(Arc::clone(peer));
        request.extensions_mut().insert(Arc::clone(line));
        request.map(Body::new)
    });
    let service = service.map_future(move |answer| trace::coming_from(Arc::clone(&place), answer));
    let serving = builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
    let mut serving = Box::pin(serving);
    tokio::select! {
        // How it ended is nobody's concern: a peer that goes away in the middle has its reasons.
        _ = &mut serving => return,
        () = end.cancelled() => {}
        () = aged(age) => {
            // It closes with the last of its calls, however long that takes: they are the peer's, and streams may stay for hours.
            // One that owes nothing closes at once, or by its keep-alive.
            line.part();
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                _ = &mut serving => return,
                () = end.cancelled() => {}
            }
        }
    }
    line.part();
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        _ = serving => {}
        () = line.settled(GOODBYE) => {}
    }
}

/// Ready when a connection that may become so old has; never, where it may become as old as it likes.
async fn aged(age: Option<Duration>) {
    match age {
        Some(age) => sleep(age).await,
        None => pending().await,
    }
}
