//! The admin listener: plain HTTP for probes, Prometheus and people. Nothing here changes anything.
//!
//! Comes in: GET requests of whoever reaches the address and knows the service by its name. Goes out: `/metrics`, `/healthz`, `/readyz`, and the status page at
//! `/` with its data at `/status.json`. The page has figures, tokens, seals and warnings; never a document, a PIN or a key.

mod door;
mod history;
mod page;
mod report;

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    middleware::from_fn_with_state,
    response::{Html, IntoResponse},
    routing::get,
};
use tokio::net::TcpListener;

pub(super) use self::door::CONNECTIONS;
use self::{history::History, page::Page, report::Report};
use super::{Live, ServeError};
use crate::{config::Config, pipeline::Pipeline};

/// An admin listener that does not serve yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
}

/// What the handlers share.
#[derive(Debug, Clone)]
struct Shown {
    live: Arc<Live>,
    pipeline: Arc<Pipeline>,
    history: Arc<History>,
    page: Arc<Page>,
}

impl Admin {
    /// Binds the address.
    ///
    /// # Errors
    /// Where it is taken.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Listen { address, source })?;
        if let Some(exposed) = door::exposed(address) {
            tracing::warn!("{exposed}");
        }
        Ok(Self { listener })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready.
    pub async fn serve(self, pipeline: Arc<Pipeline>, live: Arc<Live>, stop: impl Future<Output = ()>) {
        let history = Arc::new(History::default());
        let remembering = tokio::spawn(history::remember(Arc::clone(&history), Arc::clone(&pipeline.metrics)));
        let router = Router::new()
            .route("/", get(page))
            .route("/status.json", get(status))
            .route("/metrics", get(metrics))
            .layer(from_fn_with_state(Arc::clone(&live), door::by_its_own_name))
            // A probe has whatever name its prober knows, and these tell nothing.
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(Shown {
                live: Arc::clone(&live),
                pipeline,
                history,
                page: Arc::new(Page::new()),
            });
        door::serve(self.listener, router, live, stop).await;
        remembering.abort();
    }
}

/// What is to be said of the admin listener of a configuration.
pub(crate) fn warning(config: &Config) -> Option<String> {
    door::exposed(config.server.admin_listen)
}

async fn page(State(shown): State<Shown>) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, shown.page.policy.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, Html(shown.page.html.clone()))
}

async fn status(State(shown): State<Shown>) -> impl IntoResponse {
    let headers = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Json(Report::of(&shown.pipeline, &shown.history)))
}

async fn metrics(State(shown): State<Shown>) -> ([(&'static str, &'static str); 1], String) {
    let pipeline = &shown.pipeline;
    let text = pipeline.metrics.expose(
        &pipeline.gate,
        &pipeline.door,
        &shown.live.access(),
        &pipeline.pool,
        &pipeline.seals.load(),
        &shown.live.trust().facts,
    );
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn ready(State(shown): State<Shown>) -> (StatusCode, &'static str) {
    match shown.pipeline.readiness() {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
