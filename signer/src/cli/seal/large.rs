//! `muhurdar seal` with a file that is too large for one message: chunks out, chunks in, and never all of it in memory.

use std::{
    io,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use muhurdar_proto::seal::v1::{
    SealLargeEnd, SealLargeHeader, SealLargeRequest, SealOptions, SealPatch, SealResult,
    seal_large_request::Part as Ask, seal_large_response::Part, seal_service_client::SealServiceClient,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use super::{Failure, Seal, exit, output::Output};

/// A file of more bytes goes in chunks: well below what a service takes in one message by default.
const LARGE: u64 = 8 << 20;
/// Bytes of a chunk.
const CHUNK: usize = 256 << 10;

impl Seal {
    /// The files that go in chunks, and those that go whole.
    pub(super) async fn by_size(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Failure> {
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for path in &self.files {
            let found = tokio::fs::metadata(path).await;
            let size = found.map_err(|e| Failure::io(path.display(), &e))?.len();
            if size > LARGE { &mut large } else { &mut small }.push(path.clone());
        }
        Ok((large, small))
    }

    /// One after the other; one that cannot be sealed does not keep the next from it.
    pub(super) async fn seal_large(&self, channel: Channel, files: &[PathBuf]) -> Result<(), Failure> {
        let mut client = SealServiceClient::new(channel);
        let mut failed = None;
        for path in files {
            match self.seal_one_large(&mut client, path).await {
                Ok((written, result)) => {
                    println!("{} -> {} at {}", path.display(), written.display(), result.signing_time);
                }
                Err(failure) => {
                    eprintln!("{}: {}", path.display(), failure.message());
                    failed = Some(failure.code());
                }
            }
        }
        failed.map_or(Ok(()), |code| Err(Failure::silent(code)))
    }

    async fn seal_one_large(
        &self,
        client: &mut SealServiceClient<Channel>,
        path: &Path,
    ) -> Result<(PathBuf, SealResult), Failure> {
        let at = |e: io::Error| Failure::io(path.display(), &e);
        let mut file = File::open(path).await.map_err(at)?;
        let header = SealLargeHeader {
            taxpayer: self.taxpayer.clone(),
            options: Some(SealOptions {
                answer: self.answer().into(),
                ..SealOptions::default()
            }),
            size: Some(file.metadata().await.map_err(at)?.len()),
            ..SealLargeHeader::default()
        };
        let (requests, outgoing) = mpsc::channel(4);
        let sending = tokio::spawn(async move {
            let mut part = Ask::Header(header);
            loop {
                let request = SealLargeRequest { part: Some(part) };
                if requests.send(request).await.is_err() {
                    // The service has refused: its answer says why.
                    return Ok(());
                }
                let mut chunk = vec![0; CHUNK];
                let read = file.read(&mut chunk).await?;
                if read == 0 {
                    return Ok(());
                }
                chunk.truncate(read);
                part = Ask::Chunk(chunk.into());
            }
        });
        let mut answers = client
            .seal_large(ReceiverStream::new(outgoing))
            .await
            .map_err(|s| of_document(&s))?
            .into_inner();
        let Some(Part::Result(result)) = answers
            .message()
            .await
            .map_err(|s| of_document(&s))?
            .and_then(|a| a.part)
        else {
            return Err(Failure::unavailable("the service did not begin with a result"));
        };
        sending
            .await
            .map_err(|e| Failure::new(exit::SOFTWARE, e))?
            .map_err(at)?;

        let mut target = Target::create(self.destination(path)?)?;
        if let Some(seal) = &result.patch {
            target.splice(path, seal).await?;
        }
        loop {
            match answers
                .message()
                .await
                .map_err(|s| of_document(&s))?
                .and_then(|a| a.part)
            {
                Some(Part::Chunk(chunk)) => target.write(&chunk).await?,
                Some(Part::End(end)) => {
                    return Ok((target.finish(&end).await?, result.result.unwrap_or_default()));
                }
                _ => {
                    return Err(Failure::unavailable(
                        "the service ended before the sealed document was whole",
                    ));
                }
            }
        }
    }
}

/// A status that says something about one document.
fn of_document(status: &tonic::Status) -> Failure {
    use tonic::Code;
    let code = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => exit::PERMISSION,
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound => exit::FAILED,
        _ => exit::UNAVAILABLE,
    };
    let details = status.get_error_details();
    let reason = details.error_info().map_or("", |info| info.reason.as_str());
    let place = details.bad_request().and_then(|b| b.field_violations.first());
    let message = place.map_or(status.message(), |violation| violation.description.as_str());
    Failure::new(code, format_args!("{reason}: {message}"))
}

/// A sealed file on its way in, without its name until it is whole.
struct Target {
    path: PathBuf,
    output: Output,
    file: File,
    digest: digest::Context,
    bytes: u64,
}

impl Target {
    fn create(path: PathBuf) -> Result<Self, Failure> {
        let output = Output::create(&path)?;
        let file = output.file().try_clone().map_err(|e| Failure::io(path.display(), &e))?;
        Ok(Self {
            path,
            output,
            file: File::from_std(file),
            digest: digest::Context::new(&digest::SHA256),
            bytes: 0,
        })
    }

    async fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.digest.update(piece);
        self.bytes += piece.len() as u64;
        let written = self.file.write_all(piece).await;
        written.map_err(|e| Failure::io(self.path.display(), &e))
    }

    /// Puts the seal into what lies in `path`.
    async fn splice(&mut self, path: &Path, seal: &SealPatch) -> Result<(), Failure> {
        let at = |e: io::Error| Failure::io(path.display(), &e);
        let mut file = File::open(path).await.map_err(at)?;
        self.copy(&mut file, path, Some(seal.offset)).await?;
        self.write(&seal.replacement).await?;
        let behind = seal.offset.saturating_add(seal.length);
        file.seek(io::SeekFrom::Start(behind)).await.map_err(at)?;
        self.copy(&mut file, path, None).await
    }

    async fn copy(&mut self, from: &mut File, path: &Path, most: Option<u64>) -> Result<(), Failure> {
        let mut from = from.take(most.unwrap_or(u64::MAX));
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = from.read(&mut chunk).await;
            match read.map_err(|e| Failure::io(path.display(), &e))? {
                0 => return Ok(()),
                read => self.write(&chunk[..read]).await?,
            }
        }
    }

    /// The file has its name once its digest is the one that the service has sealed.
    async fn finish(mut self, end: &SealLargeEnd) -> Result<PathBuf, Failure> {
        if self.digest.clone().finish().as_ref() != &end.sealed_document_sha256[..] || self.bytes != end.size {
            return Err(Failure::unavailable(
                "what came is not what the service has sealed; try again",
            ));
        }
        // A write is told to have failed at the next one, so the last one is waited for.
        let written = self.file.flush().await;
        written.map_err(|e| Failure::io(self.path.display(), &e))?;
        self.output.finish()
    }
}
