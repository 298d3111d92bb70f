//! `muhurdar seal`: files to a running service, sealed files back.

mod hash_only;
mod large;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use muhurdar_proto::seal::v1::{
    AnswerKind, SealOptions, SealRequest, SealStreamRequest, seal_response::Answer as Body,
    seal_service_client::SealServiceClient, seal_stream_response::Outcome,
};
use tonic::transport::Channel;
use tonic_types::{RpcStatusExt as _, StatusExt as _, pb};

use super::{Failure, exit, output};
use crate::client::{ClientConfigFile, ClientError};

/// Documents that are on their way at a time.
const WINDOW: usize = 64;
/// Bytes that one answer may have: the server decides what it seals, this only keeps a broken one from filling memory.
const MAX_ANSWER: usize = 1 << 30;

/// `muhurdar seal`
#[derive(Debug, Args)]
pub(super) struct Seal {
    /// Endpoint and certificates, as `muhurdar dev` writes them
    #[arg(long, value_name = "CLIENT.toml", conflicts_with_all = ["endpoint", "ca", "cert", "key"], required_unless_present = "endpoint")]
    config: Option<PathBuf>,
    /// https://HOST:PORT of the service
    #[arg(long, value_name = "URL", requires_all = ["ca", "cert", "key"])]
    endpoint: Option<String>,
    /// Authority of the service's certificate (PEM or DER)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate (PEM or DER)
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key (PEM or DER), not encrypted
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// VKN or TCKN of the taxpayer whose seal is wanted
    #[arg(long, value_name = "VKN")]
    taxpayer: String,
    /// Documents
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Where the sealed files go, under their own names; without it beside each file, as NAME.sealed.xml. Two files never share a name, and none is
    /// written over one that is sealed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Fetch only the seal and put it into the document here
    #[arg(long)]
    signature_only: bool,
    /// Prepare the document here and have only a digest signed: the document never leaves this machine. Needs the right
    /// "digest"
    #[arg(long, conflicts_with = "signature_only")]
    hash_only: bool,
}

impl Seal {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = self.client()?;
        self.each_apart()?;
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out).map_err(|e| Failure::io(out.display(), &e))?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Failure::io("runtime", &e))?;
        runtime.block_on(async {
            let channel = client.connect().await.map_err(|error| match error {
                ClientError::Config { .. } => Failure::usage(error),
                ClientError::Refused { .. } => Failure::new(exit::PERMISSION, error),
                ClientError::Connect { .. } => Failure::unavailable(format_args!("{error}; is the service running?")),
            })?;
            if self.hash_only {
                return self.seal_by_digest(channel).await;
            }
            let (large, small) = self.by_size().await?;
            let outcome = if small.is_empty() {
                Ok(())
            } else {
                self.seal_all(channel.clone(), &small).await
            };
            outcome.and(self.seal_large(channel, &large).await)
        })
    }

    fn client(&self) -> Result<ClientConfigFile, Failure> {
        match (&self.config, &self.endpoint, &self.ca, &self.cert, &self.key) {
            (Some(path), ..) => ClientConfigFile::load(path).map_err(Failure::usage),
            (None, Some(endpoint), Some(ca), Some(cert), Some(key)) => Ok(ClientConfigFile {
                endpoint: endpoint.clone(),
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
            }),
            _ => Err(Failure::usage(
                "give --config CLIENT.toml, or --endpoint with --ca, --cert and --key",
            )),
        }
    }

    async fn seal_all(&self, channel: Channel, files: &[PathBuf]) -> Result<(), Failure> {
        let mut client = SealServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let window = std::sync::Arc::new(tokio::sync::Semaphore::new(WINDOW));
        let (to_read, taxpayer, answer) = (files.to_vec(), self.taxpayer.clone(), self.answer());
        let places = std::sync::Arc::clone(&window);
        let reader = tokio::spawn(async move {
            for (index, path) in to_read.iter().enumerate() {
                let Ok(place) = places.acquire().await else {
                    return Ok(());
                };
                place.forget();
                let document = tokio::fs::read(path)
                    .await
                    .map_err(|e| Failure::io(path.display(), &e))?;
                let request = SealRequest {
                    taxpayer: taxpayer.clone(),
                    document: document.into(),
                    options: Some(SealOptions {
                        answer: answer.into(),
                        ..SealOptions::default()
                    }),
                    ..SealRequest::default()
                };
                let request = SealStreamRequest {
                    id: index.to_string(),
                    request: Some(request),
                };
                if requests.send(request).await.is_err() {
                    return Ok(());
                }
            }
            Ok(())
        });
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let mut answers = client
            .seal_stream(outgoing)
            .await
            .map_err(|s| refused(&s))?
            .into_inner();
        let progress = progress(files.len());
        let mut failures = Vec::new();
        let mut answered = 0;
        while let Some(answer) = answers.message().await.map_err(|s| refused(&s))? {
            // What is on its way is answered still; then the stream ends, and says why.
            if matches!(answer.outcome, Some(Outcome::Draining(_))) {
                continue;
            }
            window.add_permits(1);
            answered += 1;
            progress.inc(1);
            let path = answer.id.parse().ok().and_then(|index: usize| files.get(index));
            let path = path.ok_or_else(|| Failure::unavailable("the service answered what was not asked"))?;
            match answer.outcome {
                Some(Outcome::Response(response)) => {
                    let written = self.write(path, response.answer).await?;
                    let result = response.result.unwrap_or_default();
                    let line = format!("{} -> {} at {}", path.display(), written.display(), result.signing_time);
                    progress.suspend(|| println!("{line}"));
                }
                Some(Outcome::Error(error)) => failures.push((path, error)),
                Some(Outcome::Draining(_)) | None => {
                    return Err(Failure::unavailable("the service answered neither a seal nor an error"));
                }
            }
        }
        progress.finish_and_clear();
        reader.await.map_err(|e| Failure::new(exit::SOFTWARE, e))??;
        if answered < files.len() {
            return Err(Failure::unavailable(
                "the service ended the stream before every document was answered",
            ));
        }
        report(&failures)
    }

    fn answer(&self) -> AnswerKind {
        if self.signature_only {
            AnswerKind::Patch
        } else {
            AnswerKind::Document
        }
    }

    async fn write(&self, path: &Path, body: Option<Body>) -> Result<PathBuf, Failure> {
        let sealed = match body {
            Some(Body::SealedDocument(document)) => document.to_vec(),
            Some(Body::Patch(seal)) => {
                let mut document = tokio::fs::read(path)
                    .await
                    .map_err(|e| Failure::io(path.display(), &e))?;
                splice(&mut document, seal.offset, seal.length, &seal.replacement)
                    .ok_or_else(|| Failure::unavailable("the seal's place lies outside the document"))?;
                document
            }
            None => return Err(Failure::unavailable("the service answered without a seal")),
        };
        self.put(path, sealed).await
    }

    async fn put(&self, path: &Path, sealed: Vec<u8>) -> Result<PathBuf, Failure> {
        let to = self.destination(path)?;
        let written = tokio::task::spawn_blocking(move || output::write(&to, &sealed).map(|()| to));
        written.await.map_err(|e| Failure::new(exit::SOFTWARE, e))?
    }

    /// Refuses before the first call what would leave fewer files than it says, or change one that it reads.
    fn each_apart(&self) -> Result<(), Failure> {
        let to = |path: &PathBuf| self.destination(path);
        let to = self.files.iter().map(to).collect::<Result<Vec<_>, _>>()?;
        let outputs: Vec<_> = self.files.iter().map(PathBuf::as_path).zip(to).collect();
        output::each_apart(&outputs)
    }

    fn destination(&self, path: &Path) -> Result<PathBuf, Failure> {
        let name = path
            .file_name()
            .ok_or_else(|| Failure::usage(format_args!("{}: is no file", path.display())))?;
        Ok(match &self.out {
            Some(out) => out.join(name),
            None => path.with_extension("sealed.xml"),
        })
    }
}

fn splice(document: &mut Vec<u8>, offset: u64, length: u64, replacement: &[u8]) -> Option<()> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    if end > document.len() {
        return None;
    }
    document.splice(start..end, replacement.iter().copied());
    Some(())
}

fn progress(files: usize) -> ProgressBar {
    if files < 8 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}");
    ProgressBar::new(files as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// The reason that a program reads.
fn reason(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// A status that ended the whole call.
fn refused(status: &tonic::Status) -> Failure {
    let code = match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => exit::PERMISSION,
        tonic::Code::InvalidArgument => exit::USAGE,
        _ => exit::UNAVAILABLE,
    };
    Failure::new(code, format_args!("{:?}: {}", status.code(), status.message()))
}

fn report(failures: &[(&PathBuf, pb::Status)]) -> Result<(), Failure> {
    for (path, error) in failures {
        let details = error.get_error_details();
        let reason = details.error_info().map_or("", |info| info.reason.as_str());
        let place = details.bad_request().and_then(|b| b.field_violations.first());
        let message = place.map_or(error.message.as_str(), |violation| violation.description.as_str());
        eprintln!("{}: {reason}: {message}", path.display());
    }
    // All of one kind of trouble has that kind's code; a document that cannot be sealed is a check that failed.
    let permission = |s: &pb::Status| s.code == tonic::Code::PermissionDenied as i32;
    let unavailable = |s: &pb::Status| s.code == tonic::Code::Unavailable as i32;
    match failures {
        [] => Ok(()),
        all if all.iter().all(|(_, s)| permission(s)) => Err(Failure::silent(exit::PERMISSION)),
        all if all.iter().all(|(_, s)| unavailable(s)) => Err(Failure::silent(exit::UNAVAILABLE)),
        _ => Err(Failure::silent(exit::FAILED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_spliced_where_the_service_says_and_nowhere_outside() {
        let mut document = b"<a><old/></a>".to_vec();
        splice(&mut document, 3, 6, b"<new/>").unwrap();
        assert_eq!(document, b"<a><new/></a>");
        assert!(splice(&mut document, 12, 2, b"").is_none());
        assert!(splice(&mut document, u64::MAX, 1, b"").is_none());
    }
}
