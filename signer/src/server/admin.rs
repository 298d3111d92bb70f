//! The admin listener: plain HTTP for probes and Prometheus. Nothing here changes anything.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use super::ServeError;
use crate::pipeline::Pipeline;

/// An admin listener that does not serve yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
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
    ///
    /// # Errors
    /// Where the listener fails.
    pub async fn serve(
        self,
        pipeline: Arc<Pipeline>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(pipeline);
        axum::serve(self.listener, router).with_graceful_shutdown(stop).await
    }
}

async fn metrics(State(pipeline): State<Arc<Pipeline>>) -> ([(&'static str, &'static str); 1], String) {
    let text = pipeline
        .metrics
        .expose(&pipeline.gate, &pipeline.door, &pipeline.pool, &pipeline.seals.load());
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn ready(State(pipeline): State<Arc<Pipeline>>) -> (StatusCode, &'static str) {
    match pipeline.readiness() {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
