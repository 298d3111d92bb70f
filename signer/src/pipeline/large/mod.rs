//! A document too large for memory: it comes in pieces, is digested as they come, waits on disk for its seal, and goes out in
//! pieces.
//!
//! The engine needs one pass over the input, but the bytes behind the seal's place cannot go out before the signature is
//! there, and of an invoice that is nearly all of them: so the input is spooled, and read once more on its way out. Its
//! pieces are digested beside the queue, since their pace is the caller's; the turn is waited for when all of it is there, with
//! nothing in memory.

mod spool;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use muhurdar_xades::{self as xades, DocumentType, Preparer, Sealing};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinHandle,
    time::{timeout, timeout_at},
};

use self::spool::{Spliced, Spool, Spooled};
use super::{Described, Pipeline, Receipt, Rules, right_taxpayer};
use crate::{
    admission::{Admitted, Caller, Errand, Visit},
    config::{Call, Config, Priority},
    refusal::{LATER, Refusal},
    seals::Seal,
    trace,
};

/// Bytes of one piece; the wire's limit for a chunk.
pub(crate) const MAX_PIECE: usize = 1 << 20;
/// Pieces between the wire and the digest.
const PIECES: usize = 2;
/// How long a caller may take for its next piece, or to take ours.
const PATIENCE: Duration = Duration::from_secs(30);
/// What one large document holds in memory, all together: pieces, a block, the transport's window.
const HELD: usize = 4 << 20;

/// What is kept for large documents.
#[derive(Debug)]
pub(crate) struct Large {
    places: Arc<Semaphore>,
    most: usize,
    folder: PathBuf,
}

impl Large {
    /// As configured.
    ///
    /// # Errors
    /// Where no file can be made in the folder.
    pub(crate) fn new(config: &Config) -> io::Result<Self> {
        let folder = config.server.spool_dir.clone().unwrap_or_else(std::env::temp_dir);
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
        Spool::create(&folder).map_err(at)?;
        let most = config.limits.large_in_flight;
        Ok(Self {
            places: Arc::new(Semaphore::new(most)),
            most,
            folder,
        })
    }
}

/// What a call asks for before its document comes.
#[derive(Debug)]
pub struct LargeRequest {
    /// VKN or TCKN.
    pub taxpayer: String,
    /// What its root must be; none: whatever is found.
    pub expect: Option<DocumentType>,
    /// How urgent it is.
    pub priority: Priority,
    /// Its size, where the caller knows it: what is too large is refused at once.
    pub size: Option<u64>,
    /// When the answer is worth nothing any more.
    pub deadline: Option<Instant>,
}

/// A large document on its way in.
#[derive(Debug)]
pub struct Incoming {
    pieces: mpsc::Sender<Piece>,
    reading: JoinHandle<Result<(xades::Digested, Spooled), Refusal>>,
    /// What seals now, and how.
    seal: Arc<Seal>,
    policy: Arc<xades::Policy>,
    rules: Arc<Rules>,
    request: LargeRequest,
    deadline: Instant,
    visit: Visit,
    place: OwnedSemaphorePermit,
}

enum Piece {
    Of(Bytes),
    /// All of them were there.
    End,
}

/// A large document that is sealed, and its bytes.
#[derive(Debug)]
pub struct LargeSealed {
    /// The seal itself and its place.
    pub seal: xades::Seal,
    /// `xades:SigningTime` as written.
    pub signing_time: String,
    /// Who sealed what with which key; none once it was taken.
    pub receipt: Receipt,
    /// The sealed document.
    pub document: Outgoing,
}

/// A sealed document on its way out.
#[derive(Debug)]
pub struct Outgoing {
    /// None while a piece is being read.
    spliced: Option<Spliced>,
    _admitted: Admitted,
    _place: OwnedSemaphorePermit,
}

impl Pipeline {
    /// Lets a large document in.
    ///
    /// # Errors
    /// Every row of the error table that can be told before a byte of it is there.
    pub async fn begin_large(&self, caller: &Caller, request: LargeRequest) -> Result<Incoming, Refusal> {
        let begun = Timestamp::now();
        caller.may(Call::Seal)?;
        let seal = self.seal_of(caller, &request.taxpayer, begun)?;
        let rules = self.rules.load_full();
        let limit = rules.large.bytes;
        if request.size.is_some_and(|size| size > limit) {
            return Err(Refusal::TooLarge { limit });
        }
        let errand = Errand {
            priority: request.priority,
            bytes: HELD,
            deadline: request.deadline,
        };
        let visit = self.door.enter(caller, errand)?;
        let place = Arc::clone(&self.large.places);
        let place = place.try_acquire_owned().map_err(|_| Refusal::Overloaded {
            limit: format!("its limit of {} large documents in flight", self.large.most),
            retry_after: LATER,
        })?;
        let latest = Instant::now() + rules.large_timeout;
        let deadline = request.deadline.map_or(latest, |d| d.min(latest));

        let (pieces, incoming) = mpsc::channel(PIECES);
        let policy = rules.forms.policy(&caller.name, &request.taxpayer);
        let reader = Reader {
            seal: Arc::clone(&seal),
            policy: Arc::clone(&policy),
            limits: rules.large.clone(),
            expect: request.expect,
            begun,
        };
        let folder = self.large.folder.clone();
        // A thread that may block: a disk is no place to wait for on the threads of all others.
        let reading = tokio::task::spawn_blocking(move || reader.read(&folder, incoming));
        Ok(Incoming {
            pieces,
            reading,
            seal,
            policy,
            rules,
            request,
            deadline,
            visit,
            place,
        })
    }

    /// Seals it, now that all of it is there.
    ///
    /// # Errors
    /// As [`Pipeline::seal`].
    pub async fn finish_large(&self, caller: &Caller, incoming: Incoming) -> Result<LargeSealed, Refusal> {
        let Incoming {
            pieces,
            reading,
            seal,
            policy,
            rules,
            request,
            deadline,
            visit,
            place,
        } = incoming;
        // Where the reader has given up, it says why itself.
        drop(pieces.send(Piece::End).await);
        let (digested, spooled) = reading.await.unwrap_or(Err(Refusal::Internal))?;
        caller.may(Call::Seal)?;
        caller.may_have_sealed(digested.document_type())?;
        right_taxpayer(digested.sealer(), &request.taxpayer, rules.unnamed_sealer)?;
        let mut admitted = self.door.turn(caller, visit, request.priority, deadline).await?;
        // It may have been minutes on its way: certificate and time are those of its signing.
        let now = Timestamp::now();
        let fresh = self.seal_of(caller, &request.taxpayer, now)?;
        // A successor of another kind seals what comes from now on; this one its predecessor's, while that is good.
        let fits = |seal: &Seal| digested.fits(&seal.certificate, &policy) && seal.usable(now).is_ok();
        let seal = if fits(&fresh) || !fits(&seal) { fresh } else { seal };
        let prepared = digested.draft(&seal.certificate, &policy, now).map_err(|other| {
            let serial = seal.certificate.serial_decimal();
            Refusal::CertificateUnusable(format!(
                "the certificate {serial} took its predecessor's place while the document was on its way: {other}; send it again"
            ))
        })?;
        let described = Described::of(&prepared);
        let (token, element) = self.sign(prepared, &seal, &admitted).await?;
        admitted.signed();
        let receipt = Receipt {
            id: trace::request_id(),
            client: Arc::clone(&caller.name),
            used: seal,
            document_type: Some(described.document_type),
            document_id: described.document_id,
            algorithm: described.algorithm,
            token,
            sealed_at: now.into(),
        }
        .issue();
        let range = element.range();
        let spliced = Spliced::new(
            spooled,
            range.start as u64..range.end as u64,
            element.replacement().to_vec(),
        );
        Ok(LargeSealed {
            seal: element,
            signing_time: described.signing_time,
            receipt,
            document: Outgoing {
                spliced: Some(spliced),
                _admitted: admitted,
                _place: place,
            },
        })
    }
}

impl Incoming {
    /// Waits for what comes from the caller, but not for ever.
    ///
    /// # Errors
    /// DEADLINE where it does not come in time.
    pub async fn patience<T>(&self, next: impl Future<Output = T>) -> Result<T, Refusal> {
        let next = timeout_at(self.deadline.into(), timeout(PATIENCE, next));
        let next = next
            .await
            .map_err(|_| Refusal::Deadline("passed while the document was on its way"))?;
        next.map_err(|_| Refusal::Deadline("passed: no chunk came for 30 s"))
    }

    /// Takes the next piece; false where the reader has given up, and [`Pipeline::finish_large`] says why.
    ///
    /// # Errors
    /// REQUEST where it is too large.
    pub async fn take(&self, piece: Bytes) -> Result<bool, Refusal> {
        if piece.len() > MAX_PIECE {
            return Err(Refusal::Request {
                field: "chunk",
                problem: format!("has {} bytes; at most {MAX_PIECE} are taken at a time", piece.len()),
            });
        }
        Ok(self.pieces.send(Piece::Of(piece)).await.is_ok())
    }
}

impl Outgoing {
    /// The next piece of the sealed document; none at the end.
    ///
    /// # Errors
    /// INTERNAL where the spool fails; the log has the reason.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Refusal> {
        let mut spliced = self.spliced.take().ok_or(Refusal::Internal)?;
        let read = tokio::task::spawn_blocking(move || (spliced.piece(), spliced)).await;
        let (piece, spliced) = read.map_err(|_| Refusal::Internal)?;
        self.spliced = Some(spliced);
        piece.map_err(|error| spool_failed(&error))
    }

    /// Hands something to the caller, who may not take for ever.
    ///
    /// # Errors
    /// DEADLINE where it does.
    pub async fn patience<T>(&self, handing: impl Future<Output = T>) -> Result<T, Refusal> {
        timeout(PATIENCE, handing)
            .await
            .map_err(|_| Refusal::Deadline("passed: the answer was not read for 30 s"))
    }

    /// SHA-256 and bytes of all pieces.
    ///
    /// # Errors
    /// INTERNAL after a failure.
    pub fn end(self) -> Result<([u8; 32], u64), Refusal> {
        self.spliced.map(Spliced::end).ok_or(Refusal::Internal)
    }
}

/// Digests and spools what comes in.
struct Reader {
    seal: Arc<Seal>,
    policy: Arc<xades::Policy>,
    limits: xades::Limits,
    expect: Option<DocumentType>,
    begun: Timestamp,
}

impl Reader {
    fn read(self, folder: &Path, mut pieces: mpsc::Receiver<Piece>) -> Result<(xades::Digested, Spooled), Refusal> {
        let mut preparer = Preparer::new(Sealing {
            certificate: &self.seal.certificate,
            policy: &self.policy,
            limits: &self.limits,
            signing_time: self.begun,
            expect: self.expect,
        });
        let failed = |error: io::Error| spool_failed(&error);
        let mut spool = Spool::create(folder).map_err(failed)?;
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Of(piece)) => {
                    preparer.feed(&piece)?;
                    spool.push(&piece).map_err(failed)?;
                }
                Some(Piece::End) => return Ok((preparer.digested()?, spool.finish().map_err(failed)?)),
                // The caller has gone: nobody reads this.
                None => return Err(Refusal::Internal),
            }
        }
    }
}

fn spool_failed(error: &io::Error) -> Refusal {
    tracing::error!(%error, "the spool of large documents failed");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Overloaded {
            limit: "what its spool_dir holds".to_owned(),
            retry_after: LATER,
        },
        _ => Refusal::Internal,
    }
}
