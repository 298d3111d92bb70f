//! Who may ask the admin listener: so many connections at a time, each for so long, and by a name that is this service's.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::super::{Live, accept::accepted_or_pause};

/// Connections at a time. One more takes the place of the oldest: a scrape takes milliseconds, and who stays for longer is asked
/// to come again.
pub(in crate::server) const CONNECTIONS: usize = 64;
/// How long a connection may be used, and how long it then has to end.
const LIFE: Duration = Duration::from_secs(300);
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves until `stop` is ready.
pub(super) async fn serve(listener: TcpListener, router: Router, live: Arc<Live>, stop: impl Future<Output = ()>) {
    let (mut tasks, mut oldest, end) = (JoinSet::new(), VecDeque::<AbortHandle>::new(), CancellationToken::new());
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        while tasks.try_join_next().is_some() {}
        oldest.retain(|connection| !connection.is_finished());
        let full = oldest.len() >= CONNECTIONS;
        // Where there are no descriptors left, one of its own is enough for the next.
        if (full || accepted.is_err())
            && let Some(connection) = oldest.pop_front()
        {
            connection.abort();
            // Its descriptor is free when it is gone.
            while !connection.is_finished() && tasks.join_next().await.is_some() {}
        }
        if full {
            tracing::warn!(
                limit = CONNECTIONS,
                "the admin listener has as many connections as it may: the oldest is closed"
            );
        }
        let Some((stream, _)) = accepted_or_pause(accepted).await else {
            continue;
        };
        let patience = live.settings().handshake_timeout;
        let connection = converse(stream, router.clone(), patience, end.clone());
        oldest.push_back(tasks.spawn(connection));
    }
    end.cancel();
    tasks.join_all().await;
}

/// Answers what comes on one connection. Its peer has so long to say what it wants, each time.
async fn converse(stream: TcpStream, router: Router, patience: Duration, end: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        // How it ended is its peer's business.
        _ = connection.as_mut() => return,
        () = tokio::time::sleep(LIFE) => {}
        () = end.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(GOODBYE, connection).await);
}

/// Answers only who has asked for this service by a name of its own. A page that a browser has loaded from elsewhere may have its
/// name resolved to this address (DNS rebinding), and would then read what is here; its name is what it cannot change.
pub(super) async fn by_its_own_name(State(live): State<Arc<Live>>, request: Request, next: Next) -> Response {
    if is_asked_for(
        request.headers(),
        request.uri().authority(),
        &live.settings().admin_hosts,
    ) {
        return next.run(request).await;
    }
    let say = "this service is not known by that name; server.admin_hosts in its configuration has those it is, beside \
               localhost and addresses\n";
    (StatusCode::MISDIRECTED_REQUEST, say).into_response()
}

fn is_asked_for(headers: &HeaderMap, authority: Option<&Authority>, named: &[String]) -> bool {
    let hosts = headers.get_all(header::HOST);
    let mut hosts = hosts.iter().map(|host| Authority::try_from(host.as_bytes()).ok());
    // One that names none is no browser.
    hosts.all(|host| host.is_some_and(|host| is_own(&host, named)))
        && authority.is_none_or(|authority| is_own(authority, named))
}

fn is_own(authority: &Authority, named: &[String]) -> bool {
    let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    // An address is not resolved, so nobody can have it resolve to something else.
    address.parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || named.iter().any(|name| name.eq_ignore_ascii_case(&host))
}

/// What is to be said of an address that strangers may reach: what is served here is served to whoever asks.
pub(super) fn exposed(address: SocketAddr) -> Option<String> {
    let ip = address.ip().to_canonical();
    let private = match ip {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    let whom = match ip {
        _ if private => return None,
        ip if ip.is_unspecified() => "on every address of this machine",
        _ => "on a public address",
    };
    Some(format!(
        "server.admin_listen is {address}: metrics, taxpayers and warnings are shown to whoever asks {whom}, without TLS or a \
         login; keep it on loopback or a management network"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_to_addresses_to_localhost_and_to_names_that_it_was_given() {
        let named = ["Muhurdar.example".to_owned()];
        let asked = |host: &str| {
            let headers = [(header::HOST, host.parse().unwrap())].into_iter().collect();
            is_asked_for(&headers, None, &named)
        };
        for own in [
            "localhost",
            "localhost:7480",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1:7480",
            "10.1.2.3",
            "[::1]:7480",
            "muhurdar.example:7480",
        ] {
            assert!(asked(own), "{own}");
        }
        for others in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "muhurdar.example.evil.example",
            "",
            "a b",
        ] {
            assert!(!asked(others), "{others}");
        }
        assert!(is_asked_for(&HeaderMap::new(), None, &named), "HTTP/1.0 has no Host");
        let elsewhere = Authority::from_static("evil.example");
        assert!(!is_asked_for(&HeaderMap::new(), Some(&elsewhere), &named));
    }

    #[test]
    fn an_address_that_strangers_may_reach_is_pointed_out() {
        for quiet in [
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.1.1",
            "fd00::1",
            "fe80::1",
        ] {
            assert_eq!(exposed(SocketAddr::new(quiet.parse().unwrap(), 7480)), None, "{quiet}");
        }
        for (loud, word) in [
            ("0.0.0.0", "every"),
            ("::", "every"),
            ("203.0.113.1", "public"),
            ("2001:db8::1", "public"),
        ] {
            let said = exposed(SocketAddr::new(loud.parse().unwrap(), 7480)).unwrap();
            assert!(said.contains(word) && said.contains("admin_listen"), "{said}");
        }
    }
}
